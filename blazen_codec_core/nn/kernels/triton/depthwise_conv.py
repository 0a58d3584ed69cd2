"""Depthwise convolution: a filter for each channel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from .launch import launch
from .vecmath import apply_epilogue, to_tf32

TILE_VALUES = 4096
"""Output values of a program."""
COLS = 64
"""Most channels of a program."""


@triton.jit(do_not_specialize=["frames"])
def _depthwise(  # type: ignore[no-untyped-def]
    x, weight, bias, alpha, inverse, scale, residual, out, frames, channels, x_batch, x_tap, residual_batch,
    ACTIVATION: tl.constexpr, BIAS: tl.constexpr, SCALE: tl.constexpr, RESIDUAL: tl.constexpr, ROUND_TF32: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    signal, start = tl.program_id(2).to(tl.int64), tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    col = tl.program_id(1) * COLS + tl.arange(0, COLS)
    col_valid = col < channels
    mask = (start + row < frames)[:, None] & col_valid[None, :]
    offset = (row * channels)[:, None] + col[None, :]  # from the start of the tile, in 32 bits
    begin = start.to(tl.int64) * channels
    source = x + signal * x_batch + begin
    total = tl.zeros((ROWS, COLS), tl.float32)
    for tap in range(TAPS):  # not unrolled: the loads of all taps at once would take too many registers
        factor = tl.load(weight + tap * channels + col, mask=col_valid, other=0.0)
        total += tl.load(source + tap * x_tap + offset, mask=mask, other=0.0).to(tl.float32) * factor[None, :]
    if BIAS:
        total += tl.load(bias + col, mask=col_valid, other=0.0)[None, :]
    frame = (start + row)[:, None]
    total = apply_epilogue(
        total, frame, col[None, :], frame < frames, col_valid[None, :], alpha, inverse, scale, ACTIVATION, SCALE
    )
    if RESIDUAL:
        total += tl.load(residual + signal * residual_batch + begin + offset, mask=mask, other=0.0).to(tl.float32)
    elif ROUND_TF32:
        total = to_tf32(total)
    tl.store(out + signal * frames * channels + begin + offset, total.to(out.dtype.element_ty), mask=mask)


class DepthwiseConv1d(FusedConv1d):
    """Depthwise convolution; see `interface.Conv1dKernel`.

    Args:
        taps: `(kernel, channels)`.
        allow_tf32: Float32 outputs are rounded to TF32.
    """

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int, *, allow_tf32: bool) -> None:
        self._taps, self._dilation, self._allow_tf32 = taps.detach().float().contiguous(), dilation, allow_tf32
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        x = frame_contiguous(x)
        batch, _, channels = x.shape
        out = x.new_empty(batch, frames, channels)
        alpha, inverse = epilogue.parameters or (out, out)
        residual = out if epilogue.residual is None else frame_contiguous(epilogue.full_residual())
        columns = min(COLS, triton.next_power_of_2(channels))
        rows = TILE_VALUES // columns
        grid = (triton.cdiv(frames, rows), triton.cdiv(channels, columns), batch)
        launch(
            _depthwise, grid, x, self._taps, self._bias, alpha, inverse, epilogue.scale, residual, out,
            frames, channels, x.stride(0), self._dilation * channels, residual.stride(0),
            ACTIVATION=epilogue.activation, BIAS=self._bias is not None, SCALE=epilogue.scale is not None,
            RESIDUAL=epilogue.residual is not None,
            ROUND_TF32=self._allow_tf32 and x.dtype == torch.float32, TAPS=self._taps.shape[0], ROWS=rows, COLS=columns,
            num_warps=8, num_stages=1,
        )  # fmt: skip
        return out
