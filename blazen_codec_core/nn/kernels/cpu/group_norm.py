"""Group norm with one group over time: one pass for sums and squares, and one that writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from . import arguments
from .arguments import EpilogueArgs, Norm, Packed, Signal, epilogue_args, require_float32, signal_args, signature
from .elementwise import apply_epilogue
from .jit import jit
from .microkernel import address, array
from .reductions import ACCUMULATORS, affine_inplace, lane_sums
from .simd import LANES

SUM_WIDTH = ACCUMULATORS * LANES
_BLOCK = 1 << 14
"""Values summed in float32, lane by lane, before their sum is added in float64."""
_TILE_VALUES = 1 << 15
"""Values of the signal whose vectors of channels are scaled one after the other."""


@njit
def block_sums(values, lanes):  # type: ignore[no-untyped-def]
    """Sum of at most a block of values, and sum of their squares."""
    groups, total, square = values.size // SUM_WIDTH, 0.0, 0.0
    if groups:
        lane_sums(address(values), groups, address(lanes[0]), address(lanes[1]))
        for i in range(SUM_WIDTH):
            total += lanes[0, i]
            square += lanes[1, i]
    for i in range(groups * SUM_WIDTH, values.size):
        total += values[i]
        square += np.float64(values[i]) * values[i]
    return total, square


@njit
def variance(values, mean, square):  # type: ignore[no-untyped-def]
    """Variance from the mean square, or in a second pass where the mean is so large that the difference would be rounding."""
    if mean * mean <= square / 2:
        return square - mean * mean
    total = 0.0
    for i in range(values.size):
        total += (values[i] - mean) * (values[i] - mean)
    return total / values.size


@jit(signature(Signal, Norm, float, EpilogueArgs))
def _normalize(signal: Any, norm: Any, epsilon: Any, epilogue: Any) -> None:
    """Normalize all signals in place."""
    y, n, after = Signal(*signal), Norm(*norm), EpilogueArgs(*epilogue)
    weight, bias, affine = array(n.weight, (y.channels,)), array(n.bias, (y.channels,)), array(n.affine, (2, y.channels))
    tile, size = max(1, _TILE_VALUES // y.channels), y.frames * y.channels
    lanes = np.empty((2, SUM_WIDTH), np.float32)
    for number in range(y.batch):
        dst = y.address + 4 * number * y.batch_stride
        values, total, total_square = array(dst, (size,)), 0.0, 0.0
        for block in range(0, size, _BLOCK):
            block_sum, block_square = block_sums(values[block : block + _BLOCK], lanes)
            total += block_sum
            total_square += block_square
        mean, square = total / size, total_square / size
        deviation = math.sqrt(variance(values, mean, square) + epsilon)
        for c in range(y.channels):
            affine[0, c] = weight[c] / deviation
            affine[1, c] = bias[c] - mean * weight[c] / deviation
        for first in range(0, y.frames, tile):
            count = min(tile, y.frames - first)
            for c in range(0, y.channels, LANES):
                row = dst + 4 * (first * y.channels + c)
                affine_inplace(row, y.channels, count, address(affine[0, c:]), address(affine[1, c:]))
            apply_epilogue(after, y, number, first, first + count, 0, y.channels)


class GroupNorm:
    """Normalization of each signal to mean 0 and variance 1 over its frames and channels, an affine map, and an epilogue.

    Args:
        weight: `(channels,)`, which must fill vectors, as `bias`; see `dispatch.group_norm`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._packed, self._channels, self._epsilon = Packed(weight, bias), len(weight), epsilon
        self._normalize = _normalize.compiled()

    def __call__(self, x: Tensor, epilogue: Epilogue = IDENTITY, *, inplace: bool = False) -> Tensor:
        require_float32(x)
        y = x if inplace and x.is_contiguous() else arguments.allocate(x.shape).copy_(x)
        output = signal_args(y, channels=self._channels)
        after, _copies = epilogue_args(epilogue, output)
        affine = arguments.allocate(2, self._channels)
        norm = tuple(Norm(affine.data_ptr(), *self._packed.addresses))
        self._normalize(output, norm, self._epsilon, after)
        return y
