"""Reading weights, and nothing but weights, from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import CodecError, WeightsUnavailable, reason
from ...foreign_json import NotJson, parse
from ...pickle_machine import Opaque
from . import reader
from .file_kinds import kind_of

LARGEST_CONFIG = 1 << 20
"""Bytes of a config."""
SHARED = 4
"""Times that a storage may be held by tensors, each of which is converted by itself."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types that weights are published in."""


def read(path: Path) -> Any:
    """Contents of a `.safetensors` file or a PyTorch checkpoint; no code in it is ever run, and memory follows its size.

    Raises:
        WeightsUnavailable: It cannot be read, is another kind of file, or holds more than plain data.
    """
    kind = kind_of(path)
    try:
        if kind != "safetensors":
            return reader.read(path)
        found = load_file(path)
        if any(len(name) > reader.LONGEST_NAME for name in found):
            raise ValueError(f"it has names of more than {reader.LONGEST_NAME} characters")
        return found
    except CodecError:
        raise
    except Exception as error:  # what a damaged file makes the readers raise is not limited to what they document
        raise WeightsUnavailable(f"{path} is not a file of weights: {reason(error)}") from error


@contextmanager
def reading(origin: str) -> Iterator[None]:
    """Makes whatever goes wrong with a file's contents `WeightsUnavailable`."""
    try:
        yield
    except CodecError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise WeightsUnavailable(f"{origin} does not fit the model: {reason(error)}") from error


def tensors(found: Any, origin: str) -> dict[str, Tensor]:
    """The state dict in `found`, in float32 where it is floating point; `origin` is where it was found, for messages.

    Raises:
        WeightsUnavailable: It is something else, or holds NaN.
    """
    if isinstance(found, Mapping) and (opaque := next((v for v in found.values() if isinstance(v, Opaque)), None)):
        raise WeightsUnavailable(
            f"{origin} holds {opaque.text.replace(' ', '.')[:80]} beside tensors, and objects that need code are never made: "
            "save the state dict alone with torch.save, and pass that"
        )
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor | reader.OddTensor) for v in found.values()):
        raise WeightsUnavailable(f"{origin} holds no state dict: names and tensors are expected")
    for name, tensor in found.items():
        if what := _odd(tensor):
            raise WeightsUnavailable(f"{origin}: {name} is {what}; save the state dict of the loaded model, of plain tensors")
    check_held(found, origin)
    state = {str(name): tensor.float() if is_weight(tensor) else tensor for name, tensor in found.items()}
    for name, tensor in state.items():
        if is_weight(tensor) and not bool(torch.isfinite(tensor).all()):
            raise WeightsUnavailable(f"{origin}: {name} holds NaN or infinite values")
    return state


def _odd(tensor: Tensor | reader.OddTensor) -> str | None:
    """Describe a tensor that holds no plain values; `None` if it holds them."""
    if isinstance(tensor, reader.OddTensor):
        return tensor.kind
    if tensor.is_nested:
        return "a nested tensor"
    return "a meta tensor, which has no values" if tensor.is_meta else None


def check_held(state: Mapping[Any, Tensor], origin: str) -> None:
    """Raises `WeightsUnavailable` where tensors claim more values than their storages hold; converted, each has all of them."""
    left: dict[int, int] = {}
    for name, tensor in state.items():
        if tensor.layout != torch.strided:
            continue
        storage, claimed = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        if claimed > (held := storage.nbytes()):
            raise WeightsUnavailable(
                f"{origin}: {name} claims {claimed} bytes and holds {held}, the same ones again and again: save it whole, "
                "with .contiguous()"
            )
        left[storage.data_ptr()] = left.get(storage.data_ptr(), SHARED * held) - claimed
        if left[storage.data_ptr()] < 0:
            raise WeightsUnavailable(
                f"{origin}: {name} and others are all in the same {held} bytes, more than {SHARED} times: save each by itself, "
                "with .clone()"
            )


def is_weight(tensor: Tensor) -> bool:
    """Tell whether a tensor is of a type that weights are published in, and not sparse."""
    return tensor.dtype in FLOATS and tensor.layout == torch.strided


def check_weight(name: str, tensor: Tensor, origin: str) -> None:
    """Raises `WeightsUnavailable` unless a tensor is of a type that weights are published in."""
    if not is_weight(tensor):
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        raise WeightsUnavailable(
            f"{origin}: {name} is {kind}; weights are float32, float16, bfloat16 or float64. Take those from before quantisation"
        )


def read_config(path: Path) -> Any:
    """Read a published `config.json`.

    Raises:
        WeightsUnavailable: It cannot be read, is no JSON, or is nested too deeply.
    """
    try:
        if (size := path.stat().st_size) > LARGEST_CONFIG:
            raise WeightsUnavailable(f"{path} has {size} bytes, and configs of {LARGEST_CONFIG} at most are read: fetch it again")
        return parse(path.read_bytes())  # of bytes, with or without a mark of their order
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    except NotJson as error:
        raise WeightsUnavailable(f"{path} {error}. Fetch it again, or correct it") from error


def load(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fills a network, every parameter and nothing else.

    Raises:
        WeightsUnavailable: Names or shapes do not fit; the message says which.
    """
    wanted = dict(network.state_dict())
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [n for n in sorted(wanted.keys() & state.keys()) if wanted[n].shape != state[n].shape]
    problems = [
        *(f"{len(names)} {what}, such as {names[0]}" for what, names in (("missing", missing), ("unknown", extra)) if names),
        *(f"{n} is {tuple(state[n].shape)} in place of {tuple(wanted[n].shape)}" for n in wrong[:1]),
    ]
    if problems:
        raise WeightsUnavailable(f"the weights of {origin} are of another model: {'; '.join(problems)}")
    for name, tensor in state.items():
        if wanted[name].is_floating_point():
            check_weight(name, tensor, origin)
    network.load_state_dict(state)
