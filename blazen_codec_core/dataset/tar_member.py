"""Members of a tar: which are audio, and where each lies in it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..audio.parts import Span, Spliced, splice
from ..errors import CorruptFile, InvalidInput, reason

SUFFIX = ".tar"
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""First bytes of a compressed file, and what undoes it."""


class Window(Spliced):
    """A part of a file as a file; closing it closes the whole."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__(file, Span(offset, offset + size))
        self._file = file

    def close(self) -> None:
        self._file.close()
        super().close()


class Member(NamedTuple):
    """A member of a tar.

    Attributes:
        offset: Of its bytes in the tar.
        size: In bytes.
        is_plain: Whether those bytes are its content: it is neither a link, a folder nor sparse.
    """

    name: str
    offset: int
    size: int
    is_plain: bool

    def content(self, tar: BinaryIO) -> BinaryIO:
        """Return it as a file, of the tar that it is in."""
        return splice(tar, Span(self.offset, self.offset + self.size))


def is_tar(name: str) -> bool:
    """Whether a file is called as a tar is, compressed or not."""
    return name.lower().endswith((SUFFIX, *COMPRESSED_SUFFIXES))


def members(path: Path) -> Iterator[Member]:
    """Yield what is whole in a tar, without its folders, and then raise if it breaks off.

    Raises:
        InvalidInput: It is compressed, which forbids reading members at random.
        CorruptFile: It is not a tar, is damaged or breaks off.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            for magic, undo in COMPRESSED.items():
                if head.startswith(magic):
                    raise InvalidInput(f"{path} is compressed: {undo} it, as compressed tars cannot be read at random")
            file.seek(0)
            yield from _members(file, path, file.seek(0, io.SEEK_END))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise CorruptFile(f"{path} cannot be read as a tar: {reason(error)}") from error


def _members(file: BinaryIO, path: Path, size: int) -> Iterator[Member]:
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            if info.offset_data + info.size > size and info.isreg():
                raise CorruptFile(f"{path} breaks off in {info.name}")
            if not info.isdir():
                yield Member(info.name, info.offset_data, info.size, info.isreg() and not info.issparse())
            tar.members = []  # type: ignore[attr-defined]  # which would all be remembered
        end = tar.offset
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if block.count(0) != tarfile.BLOCKSIZE:
        raise CorruptFile(f"{path} breaks off or is damaged at byte {end}: its end is not marked")
