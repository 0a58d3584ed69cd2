"""Depthwise convolutions: a filter of its own for each channel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import NOTHING, Epilogue, FusedConv1d
from ..memory_format import whole
from .launch import launch
from .vecmath import finished, to_tf32

VALUES = 4096
"""Made by a program."""
COLUMNS = 64
"""Channels of a program, at most."""


@triton.jit(do_not_specialize=["frames"])
def _depthwise(  # type: ignore[no-untyped-def]
    x, weight, bias, alpha, inverse, scale, added, out, frames, channels, x_batch, x_tap, added_batch,
    KIND: tl.constexpr, BIAS: tl.constexpr, SCALE: tl.constexpr, ADD: tl.constexpr, ROUGH: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    signal, start = tl.program_id(2).to(tl.int64), tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    exists = column < channels
    filled = (start + row < frames)[:, None] & exists[None, :]
    place = (row * channels)[:, None] + column[None, :]  # from where the block begins, in 32 bits
    begin = start.to(tl.int64) * channels
    source = x + signal * x_batch + begin
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tap in range(TAPS):  # not unrolled: the loads of all taps at once would take the registers of other programs
        factor = tl.load(weight + tap * channels + column, mask=exists, other=0.0)
        total += tl.load(source + tap * x_tap + place, mask=filled, other=0.0).to(tl.float32) * factor[None, :]
    if BIAS:
        total += tl.load(bias + column, mask=exists, other=0.0)[None, :]
    frame = (start + row)[:, None]
    total = finished(total, frame, column[None, :], frame < frames, exists[None, :], alpha, inverse, scale, KIND, SCALE)
    if ADD:
        total += tl.load(added + signal * added_batch + begin + place, mask=filled, other=0.0).to(tl.float32)
    elif ROUGH:
        total = to_tf32(total)
    tl.store(out + signal * frames * channels + begin + place, total.to(out.dtype.element_ty), mask=filled)


class Depthwise(FusedConv1d):
    """See `aten.conv.Conv1dKernel`.

    Args:
        taps: `(kernel, channels)`.
        rough: What is made of float32 is rounded to what TF32 has.
    """

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int, *, rough: bool) -> None:
        self._taps, self._dilation, self._rough = taps.detach().float().contiguous(), dilation, rough
        self._bias = None if bias is None else bias.detach().float().contiguous()

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        x = whole(x)
        batch, _, channels = x.shape
        out = x.new_empty(batch, frames, channels)
        alpha, inverse = after.parameters or (out, out)
        added = out if after.added is None else whole(after.all_added())
        columns = min(COLUMNS, triton.next_power_of_2(channels))
        rows = VALUES // columns
        grid = (triton.cdiv(frames, rows), triton.cdiv(channels, columns), batch)
        launch(
            _depthwise, grid, x, self._taps, self._bias, alpha, inverse, after.scale, added, out,
            frames, channels, x.stride(0), self._dilation * channels, added.stride(0),
            KIND=after.kind, BIAS=self._bias is not None, SCALE=after.scale is not None, ADD=after.added is not None,
            ROUGH=self._rough and x.dtype == torch.float32, TAPS=self._taps.shape[0], ROWS=rows, COLUMNS=columns,
            num_warps=8, num_stages=1,
        )  # fmt: skip
        return out
