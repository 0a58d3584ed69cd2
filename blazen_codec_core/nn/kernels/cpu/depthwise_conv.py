"""Depthwise convolution: a filter for each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from . import arguments
from .arguments import (
    NO_EPILOGUE,
    DepthwiseFilter,
    EpilogueArgs,
    Packed,
    Rows,
    Signal,
    Terms,
    epilogue_args,
    signal_args,
    signature,
)
from .elementwise import apply_epilogue
from .jit import jit
from .microkernel import depthwise_rows
from .packing import bias_or_zeros, pack_panels
from .simd import LANES

_TILE_VALUES = 1 << 13
"""Values of the signal that are processed for one vector of channels after the other."""


@jit(signature(Signal, DepthwiseFilter, EpilogueArgs, Signal))
def _convolve(signal: Any, packed: Any, epilogue: Any, output: Any) -> None:
    x, w, after, y = Signal(*signal), DepthwiseFilter(*packed), EpilogueArgs(*epilogue), Signal(*output)
    terms, tile = Terms(w.taps, w.dilation * x.channels, 1), max(1, _TILE_VALUES // x.channels)
    for number in range(y.batch):
        src, dst = x.address + 4 * number * x.batch_stride, y.address + 4 * number * y.batch_stride
        for first in range(0, y.frames, tile):
            count = min(tile, y.frames - first)
            for col in range(0, x.channels, LANES):
                c = min(col, x.channels - LANES)  # the last vector may overlap the one before, with the same values
                offset = 4 * (first * x.channels + c)
                source, target = Rows(src + offset, x.channels), Rows(dst + offset, x.channels)
                depthwise_rows(source, terms, w.weight + 4 * col * w.taps, Rows(w.bias + 4 * c, 0), target, 0, count)
            apply_epilogue(after, y, number, first, first + count, 0, y.channels)


class DepthwiseConv1d(FusedConv1d):
    """Depthwise convolution of float32 signals on a CPU; see `interface.Conv1dKernel`.

    Args:
        taps: `(kernel, channels)`, of at least one vector of channels.
    """

    needs_bucketing = False

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int) -> None:
        kernel, self._channels = taps.shape
        self._reach = (kernel - 1) * dilation
        full = self._channels // LANES * LANES
        vectors = torch.cat([taps[:, :full], taps[:, -LANES:]], dim=1) if full < self._channels else taps
        self._packed = Packed(pack_panels(vectors, 1), bias_or_zeros(bias, taps))
        self._filter = tuple(DepthwiseFilter(kernel, dilation, *self._packed.addresses))
        self._convolve = _convolve.compiled()

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        source = signal_args(x, frames + self._reach, self._channels)
        y = arguments.allocate(source[2], frames, self._channels)
        output = signal_args(y)
        after, _copies = NO_EPILOGUE if epilogue is IDENTITY else epilogue_args(epilogue, output)
        self._convolve(source, self._filter, after, output)
        return y
