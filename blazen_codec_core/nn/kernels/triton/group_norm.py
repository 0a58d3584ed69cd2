"""Group norm with one group over whole signals."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..memory_format import frame_contiguous
from .elementwise import BLOCK
from .launch import launch
from .vecmath import apply_epilogue


@triton.jit
def _moments(x, parts, total, x_batch, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Number of values in a block, their mean, and the sum of their squared deviations."""
    signal = tl.program_id(1).to(tl.int64)
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = offset < total
    value = tl.load(x + signal * x_batch + offset, mask=valid, other=0.0).to(tl.float32)
    count = tl.sum(valid.to(tl.float32), 0)
    mean = tl.sum(value, 0) / count
    deviation = tl.where(valid, value - mean, 0.0)
    out = parts + (signal * tl.num_programs(0) + tl.program_id(0)) * 3
    tl.store(out, count)
    tl.store(out + 1, mean)
    tl.store(out + 2, tl.sum(deviation * deviation, 0))


@triton.jit
def _normalize(  # type: ignore[no-untyped-def]
    x, factor, offset, alpha, inverse, scale, residual, out, channels, total, x_batch, residual_batch, out_batch,
    ACTIVATION: tl.constexpr, SCALE: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    signal = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid, channel = index < total, index % channels
    value = tl.load(x + signal * x_batch + index, mask=valid, other=0.0).to(tl.float32)
    value = value * tl.load(factor + signal * channels + channel) + tl.load(offset + signal * channels + channel)
    value = apply_epilogue(value, index // channels, channel, valid, valid, alpha, inverse, scale, ACTIVATION, SCALE)
    if RESIDUAL:
        value += tl.load(residual + signal * residual_batch + index, mask=valid, other=0.0).to(tl.float32)
    tl.store(out + signal * out_batch + index, value.to(out.dtype.element_ty), mask=valid)


class GroupNorm:
    """Group norm and an epilogue; see `dispatch.group_norm`. Signals may have any floating dtype."""

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = weight.detach().double(), bias.detach().double(), epsilon

    def __call__(self, x: Tensor, epilogue: Epilogue = IDENTITY, *, inplace: bool = False) -> Tensor:
        x = frame_contiguous(x)
        batch, frames, channels = x.shape
        total = frames * channels
        grid = (triton.cdiv(total, BLOCK), batch)
        parts = torch.empty(batch, grid[0], 3, device=x.device)
        launch(_moments, grid, x, parts, total, x.stride(0), BLOCK=BLOCK, num_warps=8)
        # merged as in Chan et al. 1983, "Algorithms for computing the sample variance"
        counts, means, squares = parts.double().unbind(2)
        mean = (counts * means).sum(1, keepdim=True) / total
        variance = (squares + counts * (means - mean).square()).sum(1, keepdim=True) / total
        factor = self._weight * torch.rsqrt(variance + self._epsilon)
        offset = self._bias - mean * factor
        out = x if inplace else torch.empty_like(x)
        alpha, inverse = epilogue.parameters or (out, out)
        residual = out if epilogue.residual is None else frame_contiguous(epilogue.full_residual())
        launch(
            _normalize, grid, x, factor.float(), offset.float(), alpha, inverse, epilogue.scale, residual, out,
            channels, total, x.stride(0), residual.stride(0), out.stride(0),
            ACTIVATION=epilogue.activation, SCALE=epilogue.scale is not None, RESIDUAL=epilogue.residual is not None,
            BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
        return out
