"""Group norm with one group over time: one pass for sums and squares, and one that writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from .elementwise import EPILOGUE_TYPE, apply_epilogue, epilogue_args
from .jit import array, jit_parallel, num_threads_for
from .microkernel import address
from .packing import bias_or_zeros
from .reductions import ACCUMULATORS, affine_inplace, lane_sums
from .simd import LANES

_WIDTH = ACCUMULATORS * LANES
_BLOCK = 1 << 14
"""Values summed in float32, lane by lane, before their sum is added in float64."""
_TILE_VALUES = 1 << 15
"""Values of the signal whose vectors of channels are scaled one after the other."""


@njit
def _block_sums(values, lanes):  # type: ignore[no-untyped-def]
    """Sum of at most a block of values, and sum of their squares."""
    groups, total, square = values.size // _WIDTH, 0.0, 0.0
    if groups:
        lane_sums(address(values), groups, address(lanes[0]), address(lanes[1]))
        for i in range(_WIDTH):
            total += lanes[0, i]
            square += lanes[1, i]
    for i in range(groups * _WIDTH, values.size):
        total += values[i]
        square += np.float64(values[i]) * values[i]
    return total, square


@njit
def _variance(values, mean, square):  # type: ignore[no-untyped-def]
    """Variance from the mean square, or in a second pass where the mean is so large that the difference would be rounding."""
    if mean * mean <= square / 2:
        return square - mean * mean
    total = 0.0
    for i in range(values.size):
        total += (values[i] - mean) * (values[i] - mean)
    return total / values.size


@jit_parallel(f"void(f4[:, ::1], f4[::1], f4[::1], f8, f8[:, ::1], f4[:, ::1], {EPILOGUE_TYPE}, i8, i8, i8)")
def _normalize(
    x: Any, weight: Any, bias: Any, epsilon: float, sums: Any, affine: Any, epilogue: Any, signal: int, tile: int, parts: int
) -> None:
    """Normalize one signal in place; `sums` and `affine` are scratch, and `signal` is its number in the batch."""
    values = x.reshape(-1)
    share = -(-sums.shape[0] // parts)
    for part in prange(parts):
        lanes = np.empty((2, _WIDTH), np.float32)
        for block in range(part * share, min((part + 1) * share, sums.shape[0])):
            sums[block, 0], sums[block, 1] = _block_sums(values[block * _BLOCK : (block + 1) * _BLOCK], lanes)
    mean, square = sums[:, 0].sum() / values.size, sums[:, 1].sum() / values.size
    deviation = math.sqrt(_variance(values, mean, square) + epsilon)
    for c in range(weight.size):
        affine[0, c] = weight[c] / deviation
        affine[1, c] = bias[c] - mean * weight[c] / deviation
    frames = -(-x.shape[0] // parts)
    for part in prange(parts):
        number = np.int64(part)
        end = min(x.shape[0], (number + 1) * frames)
        for first in range(number * frames, end, tile):
            count = min(tile, end - first)
            for c in range(0, x.shape[1], LANES):
                affine_inplace(address(x[first, c:]), x.shape[1], count, address(affine[0, c:]), address(affine[1, c:]))
            apply_epilogue(epilogue, signal, address(x), x.shape[1], first, first + count, 0, x.shape[1])


class GroupNorm:
    """Normalization of each signal to mean 0 and variance 1 over its frames and channels, an affine map, and an epilogue.

    The blocks that are summed in float32 do not depend on the number of threads.

    Args:
        weight: `(channels,)`, which must fill vectors, as `bias`; see `dispatch.group_norm`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = bias_or_zeros(weight, weight), bias_or_zeros(bias, weight), epsilon
        self._tile = max(1, _TILE_VALUES // len(weight))

    def __call__(self, x: Tensor, epilogue: Epilogue = IDENTITY, *, inplace: bool = False) -> Tensor:
        y = x.contiguous() if inplace else x.clone(memory_format=torch.contiguous_format)
        weight, bias, parts = array(self._weight), array(self._bias), num_threads_for(y[0].numel())
        sums, affine = np.empty((-(-y[0].numel() // _BLOCK), 2)), array(y.new_empty(2, y.shape[2]))
        arguments, _alive = epilogue_args(epilogue)
        for number, signal in enumerate(array(y)):
            _normalize(signal, weight, bias, self._epsilon, sums, affine, arguments, number, self._tile, parts)
        return y
