"""kn2row (Vasudevan et al. 2017): one GEMM for all taps, then shift-add, where the taps fill vectors together."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from numba import prange
from torch import Tensor

from .jit import array, jit_parallel, num_threads_for
from .microkernel import address, gemm_rows_v1
from .packing import bias_or_zeros, pack_panels
from .simd import LANES

_TILE_FRAMES = 128
"""Frames whose products stay in L1."""


@jit_parallel("void(f4[:, ::1], i8, i8, f4[:, :, ::1], f4[::1], f4[::1], f4[:, :, ::1], f4[:, ::1], i8)")
def _convolve(x: Any, taps: int, dilation: int, weight: Any, bias: Any, zeros: Any, scratch: Any, out: Any, parts: int) -> None:
    """Convolve one signal by kn2row, with scratch `(parts, rows, taps * channels out)`, padded to full vectors."""
    frames, channels = out.shape
    depth, width = x.shape[1], scratch.shape[2]
    reach, share = (taps - 1) * dilation, -(-frames // parts)
    tile = scratch.shape[1] - reach
    for part in prange(parts):
        products, end = scratch[part], min(frames, (part + 1) * share)
        for first in range(part * share, end, tile):
            count = min(tile, end - first)
            for v in range(weight.shape[0]):
                src, panel, dst = address(x[first:]), address(weight[v]), address(products[0, v * LANES :])
                gemm_rows_v1(src, depth, 1, 0, depth, panel, address(zeros), 0, dst, width, 0, count + reach)
            for t in range(count):
                for c in range(channels):
                    total = bias[c]
                    for j in range(taps):
                        total += products[t + j * dilation, j * channels + c]
                    out[first + t, c] = total


class Kn2rowConv1d:
    """`aten.conv.Kn2rowConv1d` of float32 signals on a CPU, in tiles whose products never leave the cache.

    Args:
        weight: `(kernel, in, out)`.
    """

    needs_bucketing = False

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._kernel, channels, self._out = weight.shape
        side_by_side = weight.detach().permute(1, 0, 2).reshape(channels, -1)
        self._weight = pack_panels(F.pad(side_by_side, (0, -side_by_side.shape[1] % LANES)), 1)
        self._bias, self._dilation = bias_or_zeros(bias, weight), dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        y, zeros = x.new_empty(x.shape[0], frames, self._out), array(x.new_zeros(LANES))
        parts = num_threads_for(x[0].numel())
        rows = min(_TILE_FRAMES, -(-frames // parts)) + (self._kernel - 1) * self._dilation
        scratch = array(x.new_empty(parts, rows, len(self._weight) * LANES))
        weight, bias = array(self._weight), array(self._bias)
        for signal, dst in zip(x, array(y), strict=True):
            src = array(signal.contiguous())
            _convolve(src, self._kernel, self._dilation, weight, bias, zeros, scratch, dst, parts)
        return y
