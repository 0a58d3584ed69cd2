"""Elementwise operations, written where the next layer reads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import Epilogue
from ..memory_format import whole
from .launch import launch
from .vecmath import NONE, function_of, to_tf32

BLOCK = 4096
"""Values a program."""


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    tail, x, alpha, inverse, ends, out,
    channels, start, first, end, total, tail_batch, x_batch, out_batch,
    KIND: tl.constexpr, ENDS: tl.constexpr, ROUGH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Places in a signal, counted in values: a tail up to `start`, zeros, new frames from `first` to `end`, and zeros again."""
    signal = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if ENDS:
        end = tl.minimum(end, first + tl.load(ends + signal) * channels)
    new = (place >= first) & (place < end)
    value = tl.load(x + signal * x_batch + (place - first), mask=new, other=0.0).to(tl.float32)
    if KIND != NONE:
        channel = place % channels
        one, other = tl.load(alpha + channel), tl.load(inverse + channel)
        value = function_of(value, one, other, KIND)
    if ROUGH:
        value = to_tf32(value)
    value += tl.load(tail + signal * tail_batch + place, mask=place < start, other=0.0).to(tl.float32)
    tl.store(out + signal * out_batch + place, value.to(out.dtype.element_ty), mask=place < total)


def apply(function: Epilogue, x: Tensor, out: Tensor) -> None:
    """Writes the function of a signal to another one of its shape, of whole frames."""
    join(x[:, :0], x, 0, function, out)


def join(
    tail: Tensor, x: Tensor, left: int, function: Epilogue, out: Tensor, ends: Tensor | None = None, *, rough: bool = False
) -> None:
    """Writes to `out` what `conv.behind` makes."""
    first = tail.shape[1] + left
    x, tail = whole(x), whole(tail)
    channels, total = x.shape[2], out.shape[1] * out.shape[2]
    if not total or not x.shape[0]:
        return
    alpha, inverse = function.parameters or (out, out)
    start, first, end = (frames * channels for frames in (tail.shape[1], first, first + x.shape[1]))
    launch(
        _join, (triton.cdiv(total, BLOCK), x.shape[0]), tail, x, alpha, inverse, ends, out,
        channels, start, first, end, total, tail.stride(0), x.stride(0), out.stride(0),
        KIND=function.kind, ENDS=ends is not None, ROUGH=rough and x.dtype == torch.float32, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
