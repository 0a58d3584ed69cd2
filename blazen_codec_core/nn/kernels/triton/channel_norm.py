"""Norms over the channels of each frame, a program a frame."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

LARGEST = 1 << 14
"""Most channels, which a program holds in registers."""


@triton.jit
def _normalize(  # type: ignore[no-untyped-def]
    x, weight, bias, out, epsilon, CHANNELS: tl.constexpr, CENTERED: tl.constexpr, BLOCK: tl.constexpr
):
    frame, c = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    value = tl.load(x + frame * CHANNELS + c, mask=c < CHANNELS, other=0.0).to(tl.float32)
    if CENTERED:
        value = tl.where(c < CHANNELS, value - tl.sum(value, 0) / CHANNELS, 0.0)
    value *= 1 / tl.sqrt(tl.sum(value * value, 0) / CHANNELS + epsilon)
    value *= tl.load(weight + c, mask=c < CHANNELS, other=0.0).to(tl.float32)
    if CENTERED:
        value += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)
    tl.store(out + frame * CHANNELS + c, value.to(out.dtype.element_ty), mask=c < CHANNELS)


class ChannelNorm:
    """Normalization of each frame over its channels; see `interface.KernelBackend.channel_norm`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = weight.detach(), None if bias is None else bias.detach(), epsilon

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, channels = x.new_empty(x.shape), x.shape[2]
        if x.numel():
            launch(
                _normalize, (x.shape[0] * x.shape[1],), x, self._weight, self._bias, out, self._epsilon, CHANNELS=channels,
                CENTERED=self._bias is not None, BLOCK=triton.next_power_of_2(channels),
            )  # fmt: skip
        return out
