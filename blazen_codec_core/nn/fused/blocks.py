"""Convolutions as they are written down."""

from __future__ import annotations

from typing import Any

from numba import prange
from torch import Tensor

from ..after import NOTHING, After, Fusing
from .compiling import array, in_parts, parts_for
from .lanes import LANES
from .panels import in_panels, kept, panel, vectors_for
from .pointwise import FINISHING, finish, finishing
from .registers import address

_STRIP_VALUES = 1 << 15
"""Of a signal that are gone through for one panel of weights after the other."""


@in_parts(f"void(i8, i8, i8, i8, i8, i8, i8, {FINISHING}, f4[:, ::1], i8, i8, i8)")
def _convolve(
    x: int, row: int, taps: int, tap: int, depth: int, weight: int, bias: int, after: Any, out: Any,
    strip: int, vectors: int, parts: int,
) -> None:  # fmt: skip
    """Parts share panels of weights, if reading these takes the longest, or else strips of the signal."""
    frames, channels = out.shape
    width = vectors * LANES
    panels, strips = channels // width, -(-frames // strip)
    heavy = taps * depth * channels > row * frames
    share = -(-panels // parts) * strips if heavy else -(-strips // parts) * panels
    for number in prange(parts):
        for unit in range(number * share, min(panels * strips, (number + 1) * share)):
            own, place = (unit // strips, unit % strips) if heavy else (unit % panels, unit // panels)
            first, column = place * strip, own * width
            own_x, own_weight, own_bias = x + 4 * first * row, weight + 4 * own * taps * depth * width, bias + 4 * column
            count = min(strip, frames - first)
            made = address(out) + 4 * (first * channels + column)
            panel(vectors, own_x, row, taps, tap, depth, own_weight, own_bias, made, channels, count)
            if heavy:
                finish(after, out, first, first + count, column, column + width)
            elif column + width == channels:
                finish(after, out, first, first + count, 0, channels)


class Blocks(Fusing):
    """A convolution of float32 signals on a CPU, of windows that are not copied; see `ways.Convolution`.

    Args:
        weight: `(kernel, in, out)`.
        stride: In frames, as is `dilation`.
    """

    any_length = True

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        kernel, channels, self._out = weight.shape
        self._row, self._tap = stride * channels, dilation * channels
        self._taps, self._depth = (1, kernel * channels) if dilation == 1 else (kernel, channels)
        self._weight = in_panels(weight.detach().reshape(-1, self._out))
        self._bias = kept(bias, weight)
        self._vectors = vectors_for(self._out)

    def __call__(self, x: Tensor, frames: int, after: After = NOTHING) -> Tensor:
        y = x.new_empty(x.shape[0], frames, self._out)
        parts = parts_for(frames * max(self._row, self._out))
        strip = -(-frames // (parts * max(1, frames * self._row // (parts * _STRIP_VALUES))))
        shape = (self._row, self._taps, self._tap, self._depth, self._weight.data_ptr(), self._bias.data_ptr())
        for signal, made, own_after in zip(x, array(y), finishing(after, len(y)), strict=True):
            own = signal.contiguous()
            _convolve(own.data_ptr(), *shape, own_after, made, strip, self._vectors, parts)
        return y
