"""Networks of which only the encoder half or the decoder half is in memory. The quantizer belongs to both."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import InvalidInput
from .checkpoints.unread import Unread
from .codec_network import CodecNetwork
from .layers.base import Layer
from .layers.quantization import ResidualVectorQuantizer

OTHER = {"encoder": "decoder", "decoder": "encoder"}
"""The half that is left out, by the half that is kept."""


class Absent(Layer):
    """Stand-in for a part of a network that is not in memory; every use raises `InvalidInput`.

    Args:
        reason: Message of the error.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise InvalidInput(self.reason)

    init_state = step = steps = step_many = frames_out = forward = _refuse


class _Deferring(threading.local):
    """Parameters that a thread has deferred, by the originals; `None` if it defers none."""

    known: WeakIdKeyDictionary | None = None


_deferring = _Deferring()


def _defer(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """Replace a parameter that is about to be registered; `None` keeps it."""
    known = _deferring.known
    if known is None or parameter is None or parameter.is_meta:
        return None
    if parameter not in known:
        known[parameter] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
    deferred: nn.Parameter = known[parameter]
    return deferred


@cache
def _add_hook() -> None:
    register_module_parameter_registration_hook(_defer)  # type: ignore[arg-type]  # its result is used


@contextmanager
def deferred_parameters() -> Iterator[None]:
    """Context in which modules that this thread constructs have parameters without memory, on PyTorch's device `meta`.

    Buffers and other tensors are constructed as usual. The hook stays: other threads may be reading PyTorch's list of hooks.
    """
    _add_hook()
    _deferring.known = WeakIdKeyDictionary()
    try:
        yield
    finally:
        _deferring.known = None


def can_fill(network: nn.Module) -> bool:
    """Tell whether only parameters were deferred. Tensors that were derived from them would stay without values."""
    tensors = chain.from_iterable((*module.buffers(recurse=False), *vars(module).values()) for module in network.modules())
    return not any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors)


def keep_half(network: CodecNetwork, half: str, reason: str) -> None:
    """Remove the other half; using it raises `InvalidInput` with `reason`. The decoder half does not search codebooks."""
    setattr(network, OTHER[half], Absent(reason))
    if half == "decoder" and isinstance(quantizers := getattr(network, "quantizer", None), ResidualVectorQuantizer):
        for quantizer in quantizers:
            quantizer.searches = False


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give deferred parameters their memory, and the values that `state` has for them.

    Raises:
        ValueError: A value has not been read.
    """
    wanted = {name: state[name] for name in network.state_dict()}
    if unread := [name for name, tensor in wanted.items() if isinstance(tensor, Unread)]:
        raise ValueError(f"{unread[0]} has not been read")
    filled: dict[int, nn.Parameter] = {}
    deferred = [
        (module, name, parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.is_meta
    ]
    for module, name, parameter in deferred:
        if id(parameter) not in filled:
            memory = torch.empty(parameter.shape, dtype=parameter.dtype)  # empty_like of a meta tensor imports sympy
            filled[id(parameter)] = nn.Parameter(memory, requires_grad=parameter.requires_grad)
        setattr(module, name, filled[id(parameter)])
    network.load_state_dict(wanted)
