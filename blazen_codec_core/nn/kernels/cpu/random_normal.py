"""Normal random numbers (Box and Muller) from the words of the noise's generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .jit import jit_parallel, num_threads_for

_TURN, _STEP = 2 * math.pi * 2.0**-32, 2.0**-32
_COST = 16
"""Values that could be copied while one word is worked on."""


@jit_parallel("void(u8[::1], f4[:, ::1], i8)")
def _normals(words: Any, out: Any, parts: int) -> None:
    share = -(-words.size // parts)
    for number in prange(parts):
        for i in range(number * share, min(words.size, (number + 1) * share)):
            radius = math.sqrt(-2 * math.log((np.float64(words[i] >> np.uint64(32)) + 0.5) * _STEP))
            angle = np.float64(words[i] & np.uint64(0xFFFFFFFF)) * _TURN
            out[i, 0], out[i, 1] = np.float32(radius * math.cos(angle)), np.float32(radius * math.sin(angle))


def normals(words: Any) -> Any:
    """Two float32 values of a standard normal distribution, by the Box-Muller transform, of each uint64: `(words, 2)`."""
    out = np.empty((words.size, 2), np.float32)
    _normals(words, out, num_threads_for(words.size * _COST))
    return out
