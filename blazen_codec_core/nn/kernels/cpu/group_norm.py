"""Group norm with one group over time: one pass for sums and squares, and one that writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import NOTHING, Epilogue
from .elementwise import EPILOGUE_TYPE, epilogue_args, finish
from .jit import array, jit_parallel, num_threads_for
from .microkernel import ABREAST, address, affine_inplace, lane_sums
from .packing import kept
from .simd import LANES

_WIDTH = ABREAST * LANES
_BLOCK = 1 << 14
"""Values that are summed in single precision, lane by lane, before they are added in double."""
_STRIP_VALUES = 1 << 15
"""Of a signal whose vectors of channels are scaled one after the other."""


@njit
def _sums(values, lanes):  # type: ignore[no-untyped-def]
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
    """From the mean square, unless the mean is so large that what is left of it would be rounding."""
    if mean * mean <= square / 2:
        return square - mean * mean
    total = 0.0
    for i in range(values.size):
        total += (values[i] - mean) * (values[i] - mean)
    return total / values.size


@jit_parallel(f"void(f4[:, ::1], f4[::1], f4[::1], f8, f8[:, ::1], f4[:, ::1], {EPILOGUE_TYPE}, i8, i8, i8)")
def _normalize(
    x: Any, weight: Any, bias: Any, epsilon: float, made: Any, scale: Any, after: Any, order: int, strip: int, parts: int
) -> None:
    values = x.reshape(-1)
    share = -(-made.shape[0] // parts)
    for number in prange(parts):
        lanes = np.empty((2, _WIDTH), np.float32)
        for block in range(number * share, min((number + 1) * share, made.shape[0])):
            made[block, 0], made[block, 1] = _sums(values[block * _BLOCK : (block + 1) * _BLOCK], lanes)
    mean, square = made[:, 0].sum() / values.size, made[:, 1].sum() / values.size
    deviation = math.sqrt(_variance(values, mean, square) + epsilon)
    for c in range(weight.size):
        scale[0, c] = weight[c] / deviation
        scale[1, c] = bias[c] - mean * weight[c] / deviation
    frames = -(-x.shape[0] // parts)
    for part in prange(parts):
        number = np.int64(part)
        end = min(x.shape[0], (number + 1) * frames)
        for first in range(number * frames, end, strip):
            count = min(strip, end - first)
            for c in range(0, x.shape[1], LANES):
                affine_inplace(address(x[first, c:]), x.shape[1], count, address(scale[0, c:]), address(scale[1, c:]))
            finish(after, order, address(x), x.shape[1], first, first + count, 0, x.shape[1])


class Norm:
    """Each signal with mean 0 and variance 1 over all its values, times a weight a channel and added to a bias; then what comes
    after. What is summed in single precision does not depend on the number of threads.

    Args:
        weight: Of channels that fill vectors, as `bias`; see `dispatch.norm`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = kept(weight, weight), kept(bias, weight), epsilon
        self._strip = max(1, _STRIP_VALUES // len(weight))

    def __call__(self, x: Tensor, after: Epilogue = NOTHING, *, inplace: bool = False) -> Tensor:
        y = x.contiguous() if inplace else x.clone(memory_format=torch.contiguous_format)
        weight, bias, parts = array(self._weight), array(self._bias), num_threads_for(y[0].numel())
        made, scale = np.empty((-(-y[0].numel() // _BLOCK), 2)), array(y.new_empty(2, y.shape[2]))
        finished, _read = epilogue_args(after)
        for order, signal in enumerate(array(y)):
            _normalize(signal, weight, bias, self._epsilon, made, scale, finished, order, self._strip, parts)
        return y
