"""Depthwise convolution: a filter for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from .elementwise import EPILOGUE_TYPE, apply_epilogue, epilogue_args
from .jit import jit_parallel, num_threads_for, require_float32_rows
from .microkernel import depthwise_rows
from .packing import bias_or_zeros, pack_panels
from .simd import LANES

_TILE_VALUES = 1 << 13
"""Values of the signal that are processed for one vector of channels after the other."""


@jit_parallel(f"void(i8, i8, i8, i8, i8, i8, i8, {EPILOGUE_TYPE}, i8, i8, i8, i8, i8)")
def _convolve(
    batch: int, x: int, x_batch: int, taps: int, dilation: int, weight: int, bias: int, epilogue: Any, out: int, frames: Any,
    channels: int, tile: int, parts: int,
) -> None:  # fmt: skip
    share = -(-frames // parts)
    for signal in range(batch):
        src, dst = x + 4 * signal * x_batch, out + 4 * signal * frames * channels
        for part in prange(parts):
            number = np.int64(part)
            end = min(frames, (number + 1) * share)
            for first in range(number * share, end, tile):
                count = min(tile, end - first)
                for c in range(0, channels, LANES):
                    offset = 4 * (first * channels + c)
                    depthwise_rows(
                        src + offset, channels, taps, dilation * channels, 1, weight + 4 * c * taps, bias + 4 * c, 0,
                        dst + offset, channels, 0, count,
                    )  # fmt: skip
                apply_epilogue(epilogue, signal, dst, channels, first, first + count, 0, channels)


class DepthwiseConv1d(FusedConv1d):
    """Depthwise convolution of float32 signals on a CPU; see `interface.Conv1dKernel`.

    Args:
        taps: `(kernel, channels)`.
    """

    needs_bucketing = False

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._taps, channels = taps.shape
        self._weight = pack_panels(taps.detach(), 1)
        self._bias, self._dilation = bias_or_zeros(bias, taps), dilation
        self._tile = max(1, _TILE_VALUES // channels)

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        x = require_float32_rows(x)
        y = x.new_empty(x.shape[0], frames, x.shape[2])
        parts, (arguments, _alive) = num_threads_for(frames * x.shape[2]), epilogue_args(epilogue)
        signals, weights = (y.shape[0], x.data_ptr(), x.stride(0)), (self._weight.data_ptr(), self._bias.data_ptr())
        output = (y.data_ptr(), frames, x.shape[2])
        _convolve(*signals, self._taps, self._dilation, *weights, arguments, *output, self._tile, parts)
        return y
