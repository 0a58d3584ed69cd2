"""kn2row (Vasudevan et al. 2017): one GEMM for all taps, then shift and add, where they fill a vector together."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from numba import prange
from torch import Tensor

from .jit import array, jit_parallel, num_threads_for
from .microkernel import address, gemm_rows_v1
from .packing import kept, pack_panels
from .simd import LANES

_STRIP = 128
"""Frames whose products stay in the nearest cache."""


@jit_parallel("void(f4[:, ::1], i8, i8, f4[:, :, ::1], f4[::1], f4[::1], f4[:, :, ::1], f4[:, ::1], i8)")
def _convolve(x: Any, taps: int, dilation: int, weight: Any, bias: Any, nothing: Any, scratch: Any, out: Any, parts: int) -> None:
    """Convolve one signal by kn2row, with scratch `(parts, rows, taps * channels out)` of whole vectors."""
    frames, channels = out.shape
    depth, width = x.shape[1], scratch.shape[2]
    reach, share = (taps - 1) * dilation, -(-frames // parts)
    strip = scratch.shape[1] - reach
    for number in prange(parts):
        made, end = scratch[number], min(frames, (number + 1) * share)
        for first in range(number * share, end, strip):
            count = min(strip, end - first)
            for vector in range(weight.shape[0]):
                source, own, to = address(x[first:]), address(weight[vector]), address(made[0, vector * LANES :])
                gemm_rows_v1(source, depth, 1, 0, depth, own, address(nothing), 0, to, width, 0, count + reach)
            for t in range(count):
                for c in range(channels):
                    total = bias[c]
                    for j in range(taps):
                        total += made[t + j * dilation, j * channels + c]
                    out[first + t, c] = total


class Kn2rowConv1d:
    """As `ways.Kn2rowConv1d`, of float32 signals on a CPU: what is shifted and added never leaves the cache.

    Args:
        weight: `(kernel, in, out)`.
    """

    any_length = True

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._kernel, channels, self._out = weight.shape
        joined = weight.detach().permute(1, 0, 2).reshape(channels, -1)
        self._weight = pack_panels(F.pad(joined, (0, -joined.shape[1] % LANES)), 1)
        self._bias, self._dilation = kept(bias, weight), dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        y, nothing = x.new_empty(x.shape[0], frames, self._out), x.new_zeros(LANES)
        parts = num_threads_for(x[0].numel())
        rows = min(_STRIP, -(-frames // parts)) + (self._kernel - 1) * self._dilation
        fixed = (array(each) for each in (self._weight, self._bias, nothing, x.new_empty(parts, rows, len(self._weight) * LANES)))
        weight, bias, none, scratch = fixed
        for signal, made in zip(x, array(y), strict=True):
            own = array(signal.contiguous())
            _convolve(own, self._kernel, self._dilation, weight, bias, none, scratch, made, parts)
        return y
