"""Depthwise convolutions: a filter of its own for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from ..epilogue import NOTHING, Epilogue, FusedConv1d
from .elementwise import EPILOGUE_TYPE, epilogue_args, finish
from .jit import jit_parallel, num_threads_for, require_float32_rows
from .microkernel import depthwise_rows
from .packing import kept, pack_panels
from .simd import LANES

_STRIP_VALUES = 1 << 13
"""Of a signal that are gone through for one vector of channels after the other."""


@jit_parallel(f"void(i8, i8, i8, i8, i8, i8, i8, {EPILOGUE_TYPE}, i8, i8, i8, i8, i8)")
def _convolve(
    batch: int, x: int, x_batch: int, taps: int, dilation: int, weight: int, bias: int, after: Any, out: int, frames: Any,
    channels: int, strip: int, parts: int,
) -> None:  # fmt: skip
    share = -(-frames // parts)
    for signal in range(batch):
        source, made = x + 4 * signal * x_batch, out + 4 * signal * frames * channels
        for part in prange(parts):
            number = np.int64(part)
            end = min(frames, (number + 1) * share)
            for first in range(number * share, end, strip):
                count = min(strip, end - first)
                for c in range(0, channels, LANES):
                    place = 4 * (first * channels + c)
                    depthwise_rows(
                        source + place, channels, taps, dilation * channels, 1, weight + 4 * c * taps, bias + 4 * c, 0,
                        made + place, channels, 0, count,
                    )  # fmt: skip
                finish(after, signal, made, channels, first, first + count, 0, channels)


class Depthwise(FusedConv1d):
    """Depthwise convolution of float32 signals on a CPU; see `aten.conv.Conv1dKernel`.

    Args:
        taps: `(kernel, channels)`.
    """

    any_length = True

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._taps, channels = taps.shape
        self._weight = pack_panels(taps.detach(), 1)
        self._bias, self._dilation = kept(bias, taps), dilation
        self._strip = max(1, _STRIP_VALUES // channels)

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        x = require_float32_rows(x)
        y = x.new_empty(x.shape[0], frames, x.shape[2])
        parts, (finished, _read) = num_threads_for(frames * x.shape[2]), epilogue_args(after)
        signals, weights = (y.shape[0], x.data_ptr(), x.stride(0)), (self._weight.data_ptr(), self._bias.data_ptr())
        of_out = (y.data_ptr(), frames, x.shape[2])
        _convolve(*signals, self._taps, self._dilation, *weights, finished, *of_out, self._strip, parts)
        return y
