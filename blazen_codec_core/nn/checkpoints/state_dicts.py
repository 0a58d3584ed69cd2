"""Validated reading of state dicts and configs, and loading into networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import CodecError, WeightsUnavailable, reason
from ...foreign_json import NotJson, parse
from ...pickle_machine import Opaque
from . import reader
from .file_kinds import kind_of
from .unread import FLOATS, Select, Unread, may_stay_unread, unread

LARGEST_CONFIG = 1 << 20
"""Largest config in bytes."""
SHARED = 4
"""Most tensors that may share a storage, because each is converted separately."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Supported types of weights, by their names in safetensors."""
CONTENT_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""Errors that unexpected content of a file causes."""


def read(path: Path, select: Select | None = None) -> Any:
    """Read a `.safetensors` file or a PyTorch checkpoint, without running code, in memory bounded by its size.

    Args:
        select: Selects tensors that are not needed; they become `Unread`.

    Raises:
        WeightsUnavailable: The file cannot be read, has another format, or has objects other than plain data.
    """
    kind = kind_of(path)
    try:
        if kind != "safetensors":
            return reader.read(path, select)
        found = load_file(path) if select is None else _load_selected(path, select)
        if any(len(name) > reader.LONGEST_NAME for name in found):
            raise ValueError(f"it has names of more than {reader.LONGEST_NAME} characters")
        return found
    except CodecError:
        raise
    except Exception as error:  # readers raise undocumented errors for damaged files
        raise WeightsUnavailable(f"{path} is not a file of weights: {reason(error)}") from error


def _load_selected(path: Path, select: Select) -> dict[str, Tensor]:
    """Read a `.safetensors` file without the values of selected tensors."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        needless, found = select(names), {}
        for name in names:
            part = file.get_slice(name) if name in needless else None
            if part is not None and may_stay_unread(part.get_shape(), DTYPES.get(part.get_dtype())):
                found[name] = unread(part.get_shape(), DTYPES[part.get_dtype()])
            else:
                found[name] = file.get_tensor(name)
    return found


@contextmanager
def reading(origin: str) -> Iterator[None]:
    """Convert errors about a file's content to `WeightsUnavailable`."""
    try:
        yield
    except CodecError:
        raise
    except CONTENT_ERRORS as error:
        raise WeightsUnavailable(f"{origin} does not fit the model: {reason(error)}") from error


def tensors(found: Any, origin: str) -> dict[str, Tensor]:
    """Return the state dict in `found`, with floating-point tensors in float32; `origin` is for messages.

    Raises:
        WeightsUnavailable: `found` is not a state dict, or has NaN.
    """
    if isinstance(found, Mapping) and (opaque := next((v for v in found.values() if isinstance(v, Opaque)), None)):
        raise WeightsUnavailable(
            f"{origin} holds {opaque.text.replace(' ', '.')[:80]} beside tensors, and objects that need code are never created. "
            "Save the state dict alone with torch.save, and pass that"
        )
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor | reader.OddTensor) for v in found.values()):
        raise WeightsUnavailable(f"{origin} holds no state dict; expected names and tensors")
    for name, tensor in found.items():
        if what := _odd(tensor):
            raise WeightsUnavailable(f"{origin}: {name} is {what}. Save the state dict of the loaded model, with plain tensors")
    check_held(found, origin)
    state = {str(name): tensor.float() if is_weight(tensor) else tensor for name, tensor in found.items()}
    for name, tensor in state.items():
        if is_weight(tensor) and not isinstance(tensor, Unread) and not bool(torch.isfinite(tensor).all()):
            raise WeightsUnavailable(f"{origin}: {name} holds NaN or infinite values")
    return state


def _odd(tensor: Tensor | reader.OddTensor) -> str | None:
    """Describe a tensor without plain values; `None` for plain tensors."""
    if isinstance(tensor, reader.OddTensor):
        return tensor.kind
    if tensor.is_nested:
        return "a nested tensor"
    return "a meta tensor, which has no values" if tensor.is_meta and not isinstance(tensor, Unread) else None


def check_held(state: Mapping[Any, Tensor], origin: str) -> None:
    """Raise `WeightsUnavailable` if tensors claim more values than their storages have; conversion would allocate them all."""
    left: dict[int, int] = {}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or isinstance(tensor, Unread):
            continue
        storage, claimed = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        if claimed > (held := storage.nbytes()):
            raise WeightsUnavailable(
                f"{origin}: {name} claims {claimed} bytes, but its storage has {held}. Save it whole, with .contiguous()"
            )
        left[storage.data_ptr()] = left.get(storage.data_ptr(), SHARED * held) - claimed
        if left[storage.data_ptr()] < 0:
            raise WeightsUnavailable(
                f"{origin}: {name} and other tensors share {held} bytes more than {SHARED} times. Save a copy of each, "
                "with .clone()"
            )


def is_weight(tensor: Tensor) -> bool:
    """Tell whether a tensor is dense and has a supported type of weights."""
    return tensor.dtype in FLOATS and tensor.layout == torch.strided


def check_weight(name: str, tensor: Tensor, origin: str) -> None:
    """Raise `WeightsUnavailable` unless a tensor is dense and has a supported type."""
    if not is_weight(tensor):
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        raise WeightsUnavailable(
            f"{origin}: {name} is {kind}; expected float32, float16, bfloat16 or float64. "
            "Use the weights from before quantisation"
        )


def read_config(path: Path) -> Any:
    """Read a published `config.json`.

    Raises:
        WeightsUnavailable: The file cannot be read, is not JSON, or exceeds a limit.
    """
    try:
        if (size := path.stat().st_size) > LARGEST_CONFIG:
            raise WeightsUnavailable(f"{path} has {size} bytes; a config has at most {LARGEST_CONFIG}. Fetch it again")
        return parse(path.read_bytes())  # bytes, with or without a byte order mark
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    except NotJson as error:
        raise WeightsUnavailable(f"{path} {error}. Fetch it again, or correct it") from error


def check(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Check that a state dict is of a network; all parameters must match.

    Raises:
        WeightsUnavailable: Names or shapes differ; the message says which.
    """
    wanted = dict(network.state_dict())
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [n for n in sorted(wanted.keys() & state.keys()) if wanted[n].shape != state[n].shape]
    problems = [
        *(f"{len(names)} {what}, such as {names[0]}" for what, names in (("missing", missing), ("unknown", extra)) if names),
        *(f"{n} has shape {tuple(state[n].shape)}; expected {tuple(wanted[n].shape)}" for n in wrong[:1]),
    ]
    if problems:
        raise WeightsUnavailable(f"the weights of {origin} are of another model: {'; '.join(problems)}")
    for name, tensor in state.items():
        if wanted[name].is_floating_point():
            check_weight(name, tensor, origin)


def load(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict into a network.

    Raises:
        WeightsUnavailable: As `check`.
    """
    check(network, state, origin)
    network.load_state_dict(state)
