"""Convolutions as matrix products over windows that are read where they lie.

Products are of bfloat16 or float16, of TF32 (float32 of which the matrix units take ten binary digits), or of float32: that is
the sum of two of TF32, and of the four products of two such sums, three are all that shows in the result (Ootomo & Yokota 2022,
"Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance"). The sum of a
block is added to that of the blocks before it outside of the matrix units, which would lose digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import NOTHING, Epilogue, FusedConv1d
from ..memory_format import whole
from .launch import launch, stages
from .vecmath import finished, to_tf32


@triton.jit(do_not_specialize=["rows", "frames"])
def _products(  # type: ignore[no-untyped-def]
    x, weight, rest, bias, alpha, inverse, scale, added, out,
    rows, frames, columns, width, taps, x_batch, x_row, x_tap, added_batch,
    KIND: tl.constexpr, BIAS: tl.constexpr, SCALE: tl.constexpr, ADD: tl.constexpr, EXACT: tl.constexpr, ROUGH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A block of rows, which are frames of all signals one after the other, and columns, which are channels."""
    wide = tl.cdiv(columns, COLUMNS)
    block, strip = tl.program_id(0) // wide, tl.program_id(0) % wide
    row = block * ROWS + tl.arange(0, ROWS)
    there = row < rows
    row = tl.minimum(row, rows - 1)
    signal, frame = (row // frames).to(tl.int64), row % frames
    column = strip * COLUMNS + tl.arange(0, COLUMNS)
    exists = column < columns
    step = tl.arange(0, DEPTH)
    source = x + (signal * x_batch + frame.to(tl.int64) * x_row)[:, None] + step[None, :]
    of_column = column[None, :] * (taps * width) + step[:, None]
    steps = tl.cdiv(width, DEPTH)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for number in range(taps * steps):
        tap, start = number // steps, (number % steps) * DEPTH
        if WHOLE:
            a = tl.load(source + tap * x_tap + start)
            b = tl.load(weight + of_column + (tap * width + start), mask=exists[None, :], other=0.0)
        else:
            inside = start + step < width
            a = tl.load(source + tap * x_tap + start, mask=inside[None, :], other=0.0)
            b = tl.load(weight + of_column + (tap * width + start), mask=exists[None, :] & inside[:, None], other=0.0)
        if EXACT:
            if WHOLE:
                c = tl.load(rest + of_column + (tap * width + start), mask=exists[None, :], other=0.0)
            else:
                c = tl.load(rest + of_column + (tap * width + start), mask=exists[None, :] & inside[:, None], other=0.0)
            high = to_tf32(a)
            part = tl.dot(a - high, b, input_precision="tf32")
            part = tl.dot(high, c, part, input_precision="tf32")
            part = tl.dot(high, b, part, input_precision="tf32")
            total = total + part
        else:
            total = tl.dot(a, b, total, input_precision="tf32")
    if BIAS:
        total += tl.load(bias + column, mask=exists, other=0.0)[None, :]
    total = finished(total, frame[:, None], column[None, :], there[:, None], exists[None, :], alpha, inverse, scale, KIND, SCALE)
    filled = there[:, None] & exists[None, :]
    if ADD:
        first, other = (block * ROWS // frames).to(tl.int64), (block * ROWS % frames).to(tl.int64)
        near = added + first * added_batch + other * columns  # from where 32 bits reach all of the block
        place = ((signal - first) * added_batch + (frame - other) * columns).to(tl.int32)
        total += tl.load(near + (place[:, None] + column[None, :]), mask=filled, other=0.0).to(tl.float32)
    elif ROUGH:  # a sum goes on without: it would lose more at every residual
        total = to_tf32(total)
    place = (tl.arange(0, ROWS) * columns)[:, None] + column[None, :]
    tl.store(out + block.to(tl.int64) * ROWS * columns + place, total.to(out.dtype.element_ty), mask=filled)


@dataclass(frozen=True)
class Blocks:
    """Block sizes and pipelining of one program, chosen by measurement.

    Only the depth, which is fixed for each weight, makes a difference to what is computed.

    Attributes:
        rows: At a time.
        columns: Channels at a time, at most.
        depth: Of a product that is added to others.
        warps: That share the work.
        stages: Of loading ahead.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


THIN, WIDE = 512, 256
"""Below so many values of a window, loading them takes longer than multiplying; from so many channels on, larger blocks pay."""
HALF = {
    "thin": Blocks(rows=128, columns=64, depth=64, warps=4, stages=3),
    "plain": Blocks(rows=128, columns=128, depth=64, warps=4, stages=3),
    "wide": Blocks(rows=256, columns=128, depth=64, warps=8, stages=3),
}
ROUGH = {
    "thin": Blocks(rows=128, columns=64, depth=32, warps=4, stages=4),
    "plain": Blocks(rows=128, columns=128, depth=32, warps=4, stages=3),
    "wide": Blocks(rows=128, columns=128, depth=32, warps=4, stages=3),
}
EXACT = {
    "thin": Blocks(rows=128, columns=64, depth=32, warps=4, stages=3),
    "plain": Blocks(rows=64, columns=128, depth=32, warps=4, stages=3),
    "wide": Blocks(rows=64, columns=128, depth=32, warps=4, stages=3),
}
LEAST_COLUMNS = 64
"""Where larger blocks would multiply by more zeros, which of exact products there are too many to waste."""
FEW_ROWS = 64
"""Up to so many, blocks have no more."""
LEAST = 16
"""Of what matrix units take."""
MOST_SPARE = 0.06
"""Of a window, that may be multiplied by zeros."""


class GemmConv1d(FusedConv1d):
    """A convolution; see `aten.conv.Conv1dKernel`. Windows of one tap after the other are read as one where they lie so.

    Args:
        taps: `(stride * in, out)` each, as for `ways.GemmPerTapConv1d`.
        dilation: In blocks of `stride` frames.
        rough: TF32 will do for float32.
    """

    def __init__(self, taps: Tensor, bias: Tensor | None, stride: int, dilation: int, *, rough: bool) -> None:
        count, width, self._columns = taps.shape
        self._stride, self._tap = stride, dilation * width
        self._taps, self._width = (1, count * width) if dilation == 1 else (count, width)
        self._bias = None if bias is None else bias.detach().float().contiguous()
        weight = taps.detach().reshape(count * width, -1).t().contiguous()
        self._half = weight.dtype != torch.float32
        self._exact, self._rough = not (rough or self._half), rough and not self._half
        high = weight if self._half else rounded(weight)
        self._weight, self._rest = high, rounded(weight - high) if self._exact else high
        kinds = HALF if self._half else ROUGH if self._rough else EXACT
        blocks = kinds["thin" if count * width < THIN else "wide" if self._columns >= WIDE else "plain"]
        if -self._columns % blocks.columns > -self._columns % LEAST_COLUMNS and self._exact:
            blocks = replace(blocks, rows=128, columns=LEAST_COLUMNS)
        columns = max(LEAST, min(blocks.columns, triton.next_power_of_2(self._columns)))
        depth = _depth(self._width, blocks.depth)
        loaded = weight.element_size() * depth * (blocks.rows + columns * (1 + self._exact))
        self._blocks = replace(blocks, columns=columns, depth=depth, stages=stages(blocks.stages, loaded, weight.device))

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        x = whole(x)
        batch, columns = x.shape[0], self._columns
        out = x.new_empty(batch, frames, columns)
        added = out if after.added is None else whole(after.all_added())
        alpha, inverse = after.parameters or (out, out)
        rows, blocks = batch * frames, self._blocks
        tall = blocks.rows if rows > FEW_ROWS else FEW_ROWS
        grid = (triton.cdiv(rows, tall) * triton.cdiv(columns, blocks.columns),)
        launch(
            _products, grid, x, self._weight, self._rest, self._bias, alpha, inverse, after.scale, added, out,
            rows, frames, columns, self._width, self._taps, x.stride(0), x.stride(1) * self._stride, self._tap,
            added.stride(0),
            KIND=after.kind, BIAS=self._bias is not None, SCALE=after.scale is not None, ADD=after.added is not None,
            EXACT=self._exact, ROUGH=self._rough, ROWS=tall, COLUMNS=blocks.columns, DEPTH=blocks.depth,
            WHOLE=self._width % blocks.depth == 0, num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
        return out


def rounded(weight: Tensor) -> Tensor:
    """The nearest values that TF32 has."""
    return ((weight.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def _depth(width: int, most: int) -> int:
    """The largest that does not add much to the width, of which it has to be a part."""
    depths = [most >> shift for shift in range(most.bit_length()) if most >> shift >= LEAST]
    return next((depth for depth in depths if -width % depth <= width * MOST_SPARE), LEAST)


class Search:
    """The entry of a codebook whose product with a vector, and its own offset, make the most; see `dispatch.search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._products = GemmConv1d(table[None].contiguous(), offset, 1, 1, rough=False)

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(1, -1, codes.shape[-1])
        made: Any = self._products(rows, rows.shape[1])[0].argmax(-1) if rows.shape[1] else rows.new_empty(0, dtype=torch.int64)
        index: Tensor = made.reshape(codes.shape[:-1])
        return index
