"""Norms over whole signals."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .pointwise import BLOCK, whole
from .target import launch


@triton.jit
def _moments(x, parts, total, x_batch, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of a block of values: how many, their mean, and the squares of their distances from it in all."""
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
def _scale(x, factor, offset, out, channels, total, x_batch, out_batch, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    signal = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, channel = place < total, place % channels + signal * channels
    value = tl.load(x + signal * x_batch + place, mask=there, other=0.0).to(tl.float32)
    value = value * tl.load(factor + channel) + tl.load(offset + channel)
    tl.store(out + signal * out_batch + place, value.to(out.dtype.element_ty), mask=there)


def normalize(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """See `kernels.normalize`."""
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
    factor = weight.double() * torch.rsqrt(variance + epsilon)
    offset = bias.double() - mean * factor
    out = torch.empty_like(x)
    strides = (x.stride(0), out.stride(0))
    launch(_scale, grid, x, factor.float(), offset.float(), out, channels, total, *strides, BLOCK=BLOCK, num_warps=8)
    return out
