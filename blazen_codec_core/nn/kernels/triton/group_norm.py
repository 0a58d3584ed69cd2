"""Group norm with one group over whole signals."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import NOTHING, Epilogue
from ..memory_format import whole
from .elementwise import BLOCK
from .launch import launch
from .vecmath import finished


@triton.jit
def _moments(x, parts, total, x_batch, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute the number of values in a block, their mean, and the sum of their squared distances from it."""
    signal = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < total
    value = tl.load(x + signal * x_batch + place, mask=there, other=0.0).to(tl.float32)
    count = tl.sum(there.to(tl.float32), 0)
    mean = tl.sum(value, 0) / count
    away = tl.where(there, value - mean, 0.0)
    out = parts + (signal * tl.num_programs(0) + tl.program_id(0)) * 3
    tl.store(out, count)
    tl.store(out + 1, mean)
    tl.store(out + 2, tl.sum(away * away, 0))


@triton.jit
def _scale(  # type: ignore[no-untyped-def]
    x, factor, offset, alpha, inverse, scale, added, out, channels, total, x_batch, added_batch, out_batch,
    KIND: tl.constexpr, SCALE: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    signal = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, channel = place < total, place % channels
    value = tl.load(x + signal * x_batch + place, mask=there, other=0.0).to(tl.float32)
    value = value * tl.load(factor + signal * channels + channel) + tl.load(offset + signal * channels + channel)
    value = finished(value, place // channels, channel, there, there, alpha, inverse, scale, KIND, SCALE)
    if ADD:
        value += tl.load(added + signal * added_batch + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out + signal * out_batch + place, value.to(out.dtype.element_ty), mask=there)


class Norm:
    """See `dispatch.norm`; signals may be of any floating type."""

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = weight.detach().double(), bias.detach().double(), epsilon

    def __call__(self, x: Tensor, after: Epilogue = NOTHING, *, inplace: bool = False) -> Tensor:
        x = whole(x)
        batch, frames, channels = x.shape
        total = frames * channels
        grid = (triton.cdiv(total, BLOCK), batch)
        parts = torch.empty(batch, grid[0], 3, device=x.device)
        launch(_moments, grid, x, parts, total, x.stride(0), BLOCK=BLOCK, num_warps=8)
        # put together as in Chan et al. 1983, "Algorithms for computing the sample variance"
        counts, means, squares = parts.double().unbind(2)
        mean = (counts * means).sum(1, keepdim=True) / total
        variance = (squares + counts * (means - mean).square()).sum(1, keepdim=True) / total
        factor = self._weight * torch.rsqrt(variance + self._epsilon)
        offset = self._bias - mean * factor
        out = x if inplace else torch.empty_like(x)
        alpha, inverse = after.parameters or (out, out)
        added = out if after.added is None else whole(after.all_added())
        launch(
            _scale, grid, x, factor.float(), offset.float(), alpha, inverse, after.scale, added, out,
            channels, total, x.stride(0), added.stride(0), out.stride(0),
            KIND=after.kind, SCALE=after.scale is not None, ADD=after.added is not None, BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
        return out
