"""Recognition of weight files, and of files commonly mistaken for them, by magic bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ...errors import WeightsUnavailable
from ...pickle_machine import PICKLES
from .archives import records

Kind = Literal["safetensors", "pytorch"]
HEAD = 512
LARGEST_HEADER = 4 << 20
"""Largest header of a safetensors file in bytes, for about 40 000 tensors."""

Test = Callable[[bytes], bool]
OTHERS: tuple[tuple[Test, str], ...] = (
    (lambda head: not head, "is empty, because it was never written or its download failed; fetch it again"),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "is a pointer of Git LFS instead of the file; run `git lfs pull` in its repository, or download the file itself",
    ),
    (
        lambda head: head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"),
        "is a web page instead of the file; use the address of the file itself, on the Hub with /resolve/ instead of /blob/",
    ),
    (lambda head: head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")), "is an archive; unpack it first"),
    (lambda head: head[257:262] == b"ustar", "is a tar archive; unpack it first"),
    (lambda head: head.startswith(b"GGUF"), "is a GGUF file; use the weights in safetensors or in PyTorch format"),
    (lambda head: head.startswith(b"\x93NUMPY"), "is a NumPy array; use the weights in safetensors or in PyTorch format"),
    (lambda head: head.startswith(b"\x89HDF"), "is an HDF5 file; use the weights in safetensors or in PyTorch format"),
    (lambda head: head.lstrip()[:1] in (b"{", b"["), "is JSON and holds no weights; pass the file beside it, or the folder"),
)
"""Tests for files that are commonly mistaken for weights, with advice."""


def kind_of(path: Path) -> Kind:
    """Determine the kind of a weight file from its content, independent of the suffix.

    Raises:
        WeightsUnavailable: The file is something else; the message says what, and what to do.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    if head[8:9] == b"{" and (size := int.from_bytes(head[:8], "little")) < 1 << 40:
        if size > LARGEST_HEADER:
            raise WeightsUnavailable(
                f"{path} has a header of {size} bytes; at most {LARGEST_HEADER} are read. Save the codec's tensors alone"
            )
        return "safetensors"
    for test, what in OTHERS:
        if test(head):
            raise WeightsUnavailable(f"{path} {what}")
    if head.startswith(b"PK"):
        _check_archive(path)
    elif not head.startswith(PICKLES):
        if path.suffix == ".safetensors":
            return "safetensors"  # its reader reports the error
        raise WeightsUnavailable(f"{path} is not a file of weights: it is neither safetensors nor a PyTorch checkpoint")
    return "pytorch"


def _check_archive(path: Path) -> None:
    """Raise `WeightsUnavailable` unless a zip archive was made by `torch.save`."""
    members = records(path)
    if any(f"/{member}".endswith("/.data/extern_modules") for member in members):
        raise WeightsUnavailable(
            f"{path} is a package of torch.package, which holds code; use the state dict instead, weights.pth beside package.pth"
        )
    if any(member.endswith("/constants.pkl") for member in members):
        raise WeightsUnavailable(
            f"{path} is a TorchScript archive, which holds code. If you trust it, "
            "write a file of its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if not any(member.endswith("/data.pkl") for member in members):
        raise WeightsUnavailable(f"{path} is a zip archive; unpack it, and pass the weights in it")
