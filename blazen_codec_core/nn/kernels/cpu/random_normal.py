"""Normal random numbers (Box & Muller 1958) from the words of a counter-based generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .jit import jit_parallel, num_threads_for

_ANGLE_STEP, _UNIFORM_STEP = 2 * math.pi * 2.0**-32, 2.0**-32
_COST = 16
"""Values that could be copied in the time that one word takes."""


@jit_parallel("void(u8[::1], f4[:, ::1], i8)")
def _box_muller_loop(words: Any, out: Any, parts: int) -> None:
    share = -(-words.size // parts)
    for part in prange(parts):
        for i in range(part * share, min(words.size, (part + 1) * share)):
            radius = math.sqrt(-2 * math.log((np.float64(words[i] >> np.uint64(32)) + 0.5) * _UNIFORM_STEP))
            angle = np.float64(words[i] & np.uint64(0xFFFFFFFF)) * _ANGLE_STEP
            out[i, 0], out[i, 1] = np.float32(radius * math.cos(angle)), np.float32(radius * math.sin(angle))


def box_muller(words: Any) -> Any:
    """Two float32 values of a standard normal distribution from each uint64, `(words, 2)`."""
    out = np.empty((words.size, 2), np.float32)
    _box_muller_loop(words, out, num_threads_for(words.size * _COST))
    return out
