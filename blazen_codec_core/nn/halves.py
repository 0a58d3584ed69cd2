"""Networks of which only the encoder half or the decoder half is in memory. Both need the quantizer, or each has one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from .checkpoints.unread import Unread
from .codec_network import CodecNetwork
from .layers.base import Layer
from .layers.deferral import Deferral
from .layers.quantization import PairedQuantizer, ResidualVectorQuantizer

OTHER = {"encoder": "decoder", "decoder": "encoder"}
"""The half that is left out, by the half that is kept."""
QUANTIZER_OF = {"encoder": "search", "decoder": "entries"}
"""The quantizer of a half, where each half has its own."""


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

    init_state = step = steps = step_many = frames_out = forward = decode = groups = _refuse
    vectors = property(_refuse)


def can_fill(network: nn.Module, deferral: Deferral) -> bool:
    """Tell whether only parameters were deferred. Tensors that share or derive values of theirs would stay without them."""
    tensors = chain.from_iterable((*module.buffers(recurse=False), *vars(module).values()) for module in network.modules())
    return deferral.is_complete and not any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors)


def keep_half(network: CodecNetwork, half: str, reason: str) -> None:
    """Remove the other half; using it raises `InvalidInput` with `reason`. The decoder half does not search codebooks."""
    setattr(network, OTHER[half], Absent(reason))
    if isinstance(quantizer := getattr(network, "quantizer", None), PairedQuantizer):
        setattr(quantizer, QUANTIZER_OF[OTHER[half]], Absent(reason))
    elif half == "decoder" and isinstance(quantizer, ResidualVectorQuantizer):
        for codebook in quantizer:
            codebook.searches = False


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
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter.is_meta
    ]
    for module, name, parameter in deferred:
        if id(parameter) not in filled:
            memory = torch.empty(parameter.shape, dtype=parameter.dtype)  # empty_like of a meta tensor imports sympy
            filled[id(parameter)] = nn.Parameter(memory, requires_grad=parameter.requires_grad)
        setattr(module, name, filled[id(parameter)])
    network.load_state_dict(wanted)
