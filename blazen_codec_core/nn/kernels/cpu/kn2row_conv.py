"""kn2row (Vasudevan et al. 2017): one GEMM for all taps, then shift-add, where the taps fill vectors together."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..memory_format import frame_contiguous
from . import arguments
from .arguments import Kn2rowFilter, Packed, Rows, Signal, Terms, signal_args, signature
from .jit import jit
from .microkernel import array, gemm_rows_v1
from .packing import bias_or_zeros, pack_panels
from .simd import LANES

_TILE_FRAMES = 128
"""Frames whose products stay in L1."""


@jit(signature(Signal, Kn2rowFilter, int, Signal))
def _convolve(signal: Any, packed: Any, scratch: Any, output: Any) -> None:
    """Convolve all signals by kn2row, with scratch for the products of a tile `(rows, vectors * LANES)`."""
    x, w, y = Signal(*signal), Kn2rowFilter(*packed), Signal(*output)
    terms, width = Terms(1, 0, x.channels), w.vectors * LANES
    reach, tile = (w.taps - 1) * w.dilation, max(1, min(_TILE_FRAMES, y.frames))
    products, bias = array(scratch, (tile + reach, width)), array(w.bias, (y.channels,))
    for number in range(y.batch):
        src = x.address + 4 * number * x.batch_stride
        out = array(y.address + 4 * number * y.batch_stride, (y.frames, y.channels))
        for first in range(0, y.frames, tile):
            count = min(tile, y.frames - first)
            for v in range(w.vectors):
                source, target = Rows(src + 4 * first * x.channels, x.channels), Rows(scratch + 4 * v * LANES, width)
                weight = w.weight + 4 * v * x.channels * LANES
                gemm_rows_v1(source, terms, weight, Rows(w.zeros, 0), target, 0, count + reach)
            for t in range(count):
                for c in range(y.channels):
                    total = bias[c]
                    for j in range(w.taps):
                        total += products[t + j * w.dilation, j * y.channels + c]
                    out[first + t, c] = total


class Kn2rowConv1d:
    """`aten.conv.Kn2rowConv1d` of float32 signals on a CPU, in tiles whose products never leave the cache.

    Args:
        weight: `(kernel, in, out)`.
    """

    needs_bucketing = False

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
        kernel, self._channels, self._out = weight.shape
        self._reach = (kernel - 1) * dilation
        side_by_side = weight.detach().permute(1, 0, 2).reshape(self._channels, -1)
        panels = pack_panels(F.pad(side_by_side, (0, -side_by_side.shape[1] % LANES)), 1)
        self._packed = Packed(panels, bias_or_zeros(bias, weight), weight.new_zeros(LANES))
        self._width = len(panels) * LANES
        self._filter = tuple(Kn2rowFilter(len(panels), kernel, dilation, *self._packed.addresses))
        self._convolve = _convolve.compiled()

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        source = signal_args(x, frames + self._reach, self._channels)
        y = arguments.allocate(source[2], frames, self._out)
        scratch = arguments.allocate(min(_TILE_FRAMES, frames) + self._reach, self._width)
        self._convolve(source, self._filter, scratch.data_ptr(), signal_args(y))
        return y
