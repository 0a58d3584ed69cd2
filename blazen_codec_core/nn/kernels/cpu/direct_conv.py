"""Direct convolution: no im2col buffer, accumulators in registers."""

from __future__ import annotations

from typing import Any

from numba import prange
from torch import Tensor

from ..epilogue import NOTHING, Epilogue, FusedConv1d
from .elementwise import EPILOGUE_TYPE, epilogue_args, finish
from .jit import jit_parallel, num_threads_for, require_float32_rows
from .packing import kept, pack_panels, panel, panel_vectors
from .simd import LANES

_STRIP_VALUES = 1 << 15
"""Of a signal that are gone through for one panel of weights after the other."""


@jit_parallel(f"void(i8, i8, i8, UniTuple(i8, 4), i8, i8, {EPILOGUE_TYPE}, i8, i8, i8, i8, i8, i8)")
def _convolve(
    batch: int, x: int, x_batch: int, shape: Any, weight: int, bias: int, after: Any, out: int, frames: int, channels: int,
    strip: int, vectors: int, parts: int,
) -> None:  # fmt: skip
    """Parts share panels of weights, if reading these takes the longest, or else strips of the signal."""
    row, taps, tap, depth = shape
    width = vectors * LANES
    panels, strips = channels // width, -(-frames // strip)
    heavy = taps * depth * channels > row * frames
    share = -(-panels // parts) * strips if heavy else -(-strips // parts) * panels
    for signal in range(batch):
        own_signal, made = x + 4 * signal * x_batch, out + 4 * signal * frames * channels
        for number in prange(parts):
            for unit in range(number * share, min(panels * strips, (number + 1) * share)):
                own, place = (unit // strips, unit % strips) if heavy else (unit % panels, unit // panels)
                first, column = place * strip, own * width
                own_x, count = own_signal + 4 * first * row, min(strip, frames - first)
                own_weight, own_bias = weight + 4 * own * taps * depth * width, bias + 4 * column
                to = made + 4 * (first * channels + column)
                panel(vectors, own_x, row, taps, tap, depth, own_weight, own_bias, to, channels, count)
                if heavy:
                    finish(after, signal, made, channels, first, first + count, column, column + width)
                elif column + width == channels:
                    finish(after, signal, made, channels, first, first + count, 0, channels)


class Blocks(FusedConv1d):
    """A convolution of float32 signals on a CPU, of windows that are not copied; see `aten.conv.Conv1dKernel`.

    Args:
        weight: `(kernel, in, out)`.
        stride: In frames, as is `dilation`.
    """

    any_length = True

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        kernel, channels, self._out = weight.shape
        self._row = stride * channels
        taps, depth = (1, kernel * channels) if dilation == 1 else (kernel, channels)
        self._shape = (self._row, taps, dilation * channels, depth)
        self._weight = pack_panels(weight.detach().reshape(-1, self._out))
        self._bias = kept(bias, weight)
        self._vectors = panel_vectors(self._out)

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        x = require_float32_rows(x)
        y = x.new_empty(x.shape[0], frames, self._out)
        parts = num_threads_for(frames * max(self._row, self._out))
        strip = -(-frames // (parts * max(1, frames * self._row // (parts * _STRIP_VALUES))))
        finished, _read = epilogue_args(after)
        weights = (self._shape, self._weight.data_ptr(), self._bias.data_ptr())
        signals = (y.shape[0], x.data_ptr(), x.stride(0))
        _convolve(*signals, *weights, finished, y.data_ptr(), frames, self._out, strip, self._vectors, parts)
        return y
