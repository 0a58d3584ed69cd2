"""Norms over the channels of each frame."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..memory_format import frame_contiguous
from .launch import launch

TILE_VALUES = 4096
"""Values of a program, unless one frame has more. So the order of sums depends on the number of channels alone."""
MAX_ROWS = 32
"""Most frames of a program."""
MAX_CHANNELS = 16_384
"""Most channels, which a program holds in registers."""


@triton.jit(do_not_specialize=["frames"])
def _normalize_channels(  # type: ignore[no-untyped-def]
    x, weight, bias, out, frames, channels, x_batch, EPSILON: tl.constexpr, CENTERED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    signal, row, col = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLS)
    col_valid = col < channels
    mask = (row < frames)[:, None] & col_valid[None, :]
    offset = (row.to(tl.int64) * channels)[:, None] + col[None, :]
    value = tl.load(x + signal * x_batch + offset, mask=mask, other=0.0).to(tl.float32)
    if CENTERED:
        mean = tl.sum(value, 1) / channels
        value = tl.where(col_valid[None, :], value - mean[:, None], 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(value * value, 1) / channels + EPSILON)
    value = value * factor[:, None] * tl.load(weight + col, mask=col_valid, other=0.0)[None, :]
    if CENTERED:
        value += tl.load(bias + col, mask=col_valid, other=0.0)[None, :]
    tl.store(out + signal * frames * channels + offset, value.to(out.dtype.element_ty), mask=mask)


def supports(weight: Tensor) -> bool:
    """Tell whether sums in float32 are as exact as the weights, and a program holds a frame."""
    return weight.dtype.itemsize <= torch.float32.itemsize and len(weight) <= MAX_CHANNELS


class ChannelNorm:
    """Normalization of each frame over its channels, in float32; see `interface.KernelBackend.channel_norm`.

    Args:
        weight: `(channels,)`.
        bias: `(channels,)`; without it, the mean is not subtracted.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> None:
        self._weight, self._epsilon = weight.detach().float().contiguous(), epsilon
        self._bias = None if bias is None else bias.detach().float().contiguous()
        self._cols = triton.next_power_of_2(len(weight))
        self._rows = max(1, min(MAX_ROWS, TILE_VALUES // self._cols))

    def __call__(self, x: Tensor) -> Tensor:
        x = frame_contiguous(x)
        batch, frames, channels = x.shape
        out = x.new_empty(x.shape)
        if not out.numel():
            return out
        launch(
            _normalize_channels, (triton.cdiv(frames, self._rows), batch), x, self._weight, self._bias, out,
            frames, channels, x.stride(0), EPSILON=self._epsilon, CENTERED=self._bias is not None,
            ROWS=self._rows, COLS=self._cols, num_warps=4,
        )  # fmt: skip
        return out
