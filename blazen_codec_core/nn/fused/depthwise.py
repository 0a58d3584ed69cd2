"""Convolutions in which each channel has a filter of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from ..after import NOTHING, After, Fusing
from .compiling import array, in_parts, parts_for
from .lanes import LANES
from .panels import kept
from .pointwise import FINISHING, finish, finishing
from .registers import address, rows_alone

_STRIP_VALUES = 1 << 13
"""Of a signal that are gone through for one vector of channels after the other."""


@in_parts(f"void(f4[:, ::1], i8, f4[:, :, ::1], f4[::1], {FINISHING}, f4[:, ::1], i8, i8)")
def _convolve(x: Any, dilation: int, weight: Any, bias: Any, after: Any, out: Any, strip: int, parts: int) -> None:
    frames, channels = out.shape
    share = -(-frames // parts)
    for part in prange(parts):
        number = np.int64(part)
        end = min(frames, (number + 1) * share)
        for first in range(number * share, end, strip):
            count = min(strip, end - first)
            for vector in range(weight.shape[0]):
                c = vector * LANES
                rows_alone(
                    address(x[first:, c:]), channels, weight.shape[1], dilation * channels, 1, address(weight[vector]),
                    address(bias[c:]), 0, address(out[first:, c:]), channels, 0, count,
                )  # fmt: skip
            finish(after, out, first, first + count, 0, channels)


class Depthwise(Fusing):
    """Of float32 signals on a CPU; see `ways.Convolution`.

    Args:
        taps: `(kernel, channels)`.
    """

    any_length = True

    def __init__(self, taps: Tensor, bias: Tensor | None, dilation: int) -> None:
        kernel, channels = taps.shape
        self._weight = taps.detach().reshape(kernel, -1, LANES).transpose(0, 1).contiguous()
        self._bias, self._dilation = kept(bias, taps), dilation
        self._strip = max(1, _STRIP_VALUES // channels)

    def __call__(self, x: Tensor, frames: int, after: After = NOTHING) -> Tensor:
        y = x.new_empty(x.shape[0], frames, x.shape[2])
        parts, weight, bias = parts_for(frames * x.shape[2]), array(self._weight), array(self._bias)
        for signal, made, own_after in zip(x, array(y), finishing(after, len(y)), strict=True):
            own = array(signal.contiguous())
            _convolve(own, self._dilation, weight, bias, own_after, made, self._strip, parts)
        return y
