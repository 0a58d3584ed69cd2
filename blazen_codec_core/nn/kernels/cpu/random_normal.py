"""Normal random numbers (Box & Muller 1958) from the words of a counter-based generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import jit

_ANGLE_STEP, _UNIFORM_STEP = 2 * math.pi * 2.0**-32, 2.0**-32


@jit("void(u8[::1], f4[:, ::1])")
def _box_muller(words: Any, out: Any) -> None:
    for i in range(words.size):
        radius = math.sqrt(-2 * math.log((np.float64(words[i] >> np.uint64(32)) + 0.5) * _UNIFORM_STEP))
        angle = np.float64(words[i] & np.uint64(0xFFFFFFFF)) * _ANGLE_STEP
        out[i, 0], out[i, 1] = np.float32(radius * math.cos(angle)), np.float32(radius * math.sin(angle))


def load_box_muller() -> Callable[[Any], Any]:
    """Function from uint64 `(words,)` to two float32 values of a standard normal distribution each, `(words, 2)`."""
    fill = _box_muller.compiled()

    def box_muller(words: Any) -> Any:
        out = np.empty((words.size, 2), np.float32)
        fill(words, out)
        return out

    return box_muller
