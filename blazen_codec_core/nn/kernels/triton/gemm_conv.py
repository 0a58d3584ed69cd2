"""Implicit-GEMM convolution: windows are read where they are, without an im2col buffer.

Factors are bfloat16, float16, TF32 or float32. Float32 is 3xTF32: each factor is the sum of two TF32 values, and three of their
four products show in the result (Ootomo & Yokota 2022, "Recovering single precision accuracy from Tensor Cores while surpassing
the FP32 theoretical peak performance"). Sums of K-blocks are added outside of the tensor cores, which would lose digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from .launch import launch, stages
from .vecmath import apply_epilogue, to_tf32


@triton.jit(do_not_specialize=["rows", "frames"])
def _gemm(  # type: ignore[no-untyped-def]
    x, weight, weight_low, bias, alpha, inverse, scale, residual, out,
    rows, frames, columns, width, taps, x_batch, x_row, x_tap, residual_batch,
    ACTIVATION: tl.constexpr, BIAS: tl.constexpr, SCALE: tl.constexpr, RESIDUAL: tl.constexpr, TF32X3: tl.constexpr,
    ROUND_TF32: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, FULL_DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute one tile. Rows are the frames of all signals, one after the other; columns are channels."""
    tiles_per_row = tl.cdiv(columns, COLUMNS)
    tile_row, tile_col = tl.program_id(0) // tiles_per_row, tl.program_id(0) % tiles_per_row
    row = tile_row * ROWS + tl.arange(0, ROWS)
    valid = row < rows
    row = tl.minimum(row, rows - 1)
    signal, frame = (row // frames).to(tl.int64), row % frames
    column = tile_col * COLUMNS + tl.arange(0, COLUMNS)
    col_valid = column < columns
    step = tl.arange(0, DEPTH)
    source = x + (signal * x_batch + frame.to(tl.int64) * x_row)[:, None] + step[None, :]
    weight_offset = column[None, :] * (taps * width) + step[:, None]
    depth_steps = tl.cdiv(width, DEPTH)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for number in range(taps * depth_steps):
        tap, start = number // depth_steps, (number % depth_steps) * DEPTH
        if FULL_DEPTH:
            a = tl.load(source + tap * x_tap + start)
            b = tl.load(weight + weight_offset + (tap * width + start), mask=col_valid[None, :], other=0.0)
        else:
            inside = start + step < width
            a = tl.load(source + tap * x_tap + start, mask=inside[None, :], other=0.0)
            b = tl.load(weight + weight_offset + (tap * width + start), mask=col_valid[None, :] & inside[:, None], other=0.0)
        if TF32X3:
            if FULL_DEPTH:
                c = tl.load(weight_low + weight_offset + (tap * width + start), mask=col_valid[None, :], other=0.0)
            else:
                c = tl.load(
                    weight_low + weight_offset + (tap * width + start), mask=col_valid[None, :] & inside[:, None], other=0.0
                )
            high = to_tf32(a)
            product = tl.dot(a - high, b, input_precision="tf32")
            product = tl.dot(high, c, product, input_precision="tf32")
            product = tl.dot(high, b, product, input_precision="tf32")
            total = total + product
        else:
            total = tl.dot(a, b, total, input_precision="tf32")
    if BIAS:
        total += tl.load(bias + column, mask=col_valid, other=0.0)[None, :]
    total = apply_epilogue(
        total, frame[:, None], column[None, :], valid[:, None], col_valid[None, :], alpha, inverse, scale, ACTIVATION, SCALE
    )
    mask = valid[:, None] & col_valid[None, :]
    if RESIDUAL:
        first, other = (tile_row * ROWS // frames).to(tl.int64), (tile_row * ROWS % frames).to(tl.int64)
        near = residual + first * residual_batch + other * columns  # from here 32 bits reach the whole tile
        offset = ((signal - first) * residual_batch + (frame - other) * columns).to(tl.int32)
        total += tl.load(near + (offset[:, None] + column[None, :]), mask=mask, other=0.0).to(tl.float32)
    elif ROUND_TF32:  # not a residual sum, which would lose more at every block
        total = to_tf32(total)
    offset = (tl.arange(0, ROWS) * columns)[:, None] + column[None, :]
    tl.store(out + tile_row.to(tl.int64) * ROWS * columns + offset, total.to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class TileConfig:
    """Tile sizes and pipelining of one program, chosen by measurement.

    Only the depth affects rounding, and it is fixed for each weight.

    Attributes:
        rows: Rows of a tile.
        columns: Most columns of a tile.
        depth: Terms of a product that is added to others.
        warps: Warps of a program.
        stages: Pipeline stages of loads.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


_MIN_DEEP, _MIN_WIDE = 512, 256
"""Windows of fewer values are bound by loads; from `_MIN_WIDE` channels, larger tiles pay."""
HALF = {
    "thin": TileConfig(rows=128, columns=64, depth=64, warps=4, stages=3),
    "plain": TileConfig(rows=128, columns=128, depth=64, warps=4, stages=3),
    "tiles_per_row": TileConfig(rows=256, columns=128, depth=64, warps=8, stages=3),
}
TF32 = {
    "thin": TileConfig(rows=128, columns=64, depth=32, warps=4, stages=4),
    "plain": TileConfig(rows=128, columns=128, depth=32, warps=4, stages=3),
    "tiles_per_row": TileConfig(rows=128, columns=128, depth=32, warps=4, stages=3),
}
TF32X3 = {
    "thin": TileConfig(rows=128, columns=64, depth=32, warps=4, stages=3),
    "plain": TileConfig(rows=64, columns=128, depth=32, warps=4, stages=3),
    "tiles_per_row": TileConfig(rows=64, columns=128, depth=32, warps=4, stages=3),
}
MIN_COLUMNS = 64
"""Columns of a tile where wider ones would multiply by more padding; 3xTF32 has no products to waste."""
FEW_ROWS = 64
"""Rows of a tile where there are no more."""
MIN_DEPTH = 16
"""Least depth that tensor cores take."""
MAX_PADDING = 0.06
"""Largest fraction of a window's width that may be padding."""


class GemmConv1d(FusedConv1d):
    """Implicit-GEMM convolution; see `interface.Conv1dKernel`. Consecutive taps are read as one row.

    Args:
        taps: `(kernel, stride * in, out)`; see `aten.conv.ChannelsLastConv2d`.
        dilation: In blocks of `stride` frames.
        allow_tf32: Float32 may be computed in TF32.
    """

    def __init__(self, taps: Tensor, bias: Tensor | None, stride: int, dilation: int, *, allow_tf32: bool) -> None:
        count, width, self._columns = taps.shape
        self._stride, self._tap = stride, dilation * width
        self._taps, self._width = (1, count * width) if dilation == 1 else (count, width)
        self._bias = None if bias is None else bias.detach().float().contiguous()
        weight = taps.detach().reshape(count * width, -1).t().contiguous()
        self._half = weight.dtype != torch.float32
        self._tf32x3, self._allow_tf32 = not (allow_tf32 or self._half), allow_tf32 and not self._half
        high = weight if self._half else round_to_tf32(weight)
        self._weight, self._weight_low = high, round_to_tf32(weight - high) if self._tf32x3 else high
        configs = HALF if self._half else TF32 if self._allow_tf32 else TF32X3
        config = configs["thin" if count * width < _MIN_DEEP else "tiles_per_row" if self._columns >= _MIN_WIDE else "plain"]
        if -self._columns % config.columns > -self._columns % MIN_COLUMNS and self._tf32x3:
            config = replace(config, rows=128, columns=MIN_COLUMNS)
        columns = max(MIN_DEPTH, min(config.columns, triton.next_power_of_2(self._columns)))
        depth = _depth(self._width, config.depth)
        loaded = weight.element_size() * depth * (config.rows + columns * (1 + self._tf32x3))
        self._config = replace(config, columns=columns, depth=depth, stages=stages(config.stages, loaded, weight.device))

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        x = frame_contiguous(x)
        batch, columns = x.shape[0], self._columns
        out = x.new_empty(batch, frames, columns)
        residual = out if epilogue.residual is None else frame_contiguous(epilogue.full_residual())
        alpha, inverse = epilogue.parameters or (out, out)
        rows, config = batch * frames, self._config
        tile_rows = config.rows if rows > FEW_ROWS else FEW_ROWS
        grid = (triton.cdiv(rows, tile_rows) * triton.cdiv(columns, config.columns),)
        launch(
            _gemm, grid, x, self._weight, self._weight_low, self._bias, alpha, inverse, epilogue.scale, residual, out,
            rows, frames, columns, self._width, self._taps, x.stride(0), x.stride(1) * self._stride, self._tap,
            residual.stride(0),
            ACTIVATION=epilogue.activation, BIAS=self._bias is not None, SCALE=epilogue.scale is not None,
            RESIDUAL=epilogue.residual is not None,
            TF32X3=self._tf32x3, ROUND_TF32=self._allow_tf32, ROWS=tile_rows, COLUMNS=config.columns, DEPTH=config.depth,
            FULL_DEPTH=self._width % config.depth == 0, num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
        return out


def round_to_tf32(weight: Tensor) -> Tensor:
    """Round to the nearest values of TF32."""
    return ((weight.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def _depth(width: int, most: int) -> int:
    """Largest depth up to `most` that pads the width by at most `MAX_PADDING`."""
    depths = [most >> shift for shift in range(most.bit_length()) if most >> shift >= MIN_DEPTH]
    return next((depth for depth in depths if -width % depth <= width * MAX_PADDING), MIN_DEPTH)


class CodebookSearch:
    """Argmax over the entries of a codebook; see `dispatch.codebook_search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._gemm = GemmConv1d(table[None].contiguous(), offset, 1, 1, allow_tf32=False)

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(1, -1, codes.shape[-1])
        if not rows.shape[1]:
            return rows.new_empty(codes.shape[:-1], dtype=torch.int64)
        return self._gemm(rows, rows.shape[1])[0].argmax(-1).reshape(codes.shape[:-1])
