"""Sums of values, and of their squares, in one reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .compiling import array, in_parts, parts_for

_ABREAST = 256
"""Sums that are taken side by side, before they are added in double precision."""
_ZERO = np.float32(0)


@in_parts("void(f4[:, :, ::1], f4[:, :, ::1], f8[:, ::1], i8)")
def _sum(blocks: Any, scratch: Any, made: Any, parts: int) -> None:
    share = -(-blocks.shape[0] // parts)
    for part in prange(parts):
        total, square = scratch[part, 0], scratch[part, 1]
        for block in range(part * share, min((part + 1) * share, blocks.shape[0])):
            total[:] = _ZERO
            square[:] = _ZERO
            for row in range(blocks.shape[1]):
                for i in range(_ABREAST):
                    total[i] = total[i] + blocks[block, row, i]
                    square[i] = square[i] + blocks[block, row, i] * blocks[block, row, i]
            made[block, 0] = made[block, 1] = 0.0
            for i in range(_ABREAST):
                made[block, 0] += total[i]
                made[block, 1] += square[i]


def sums(values: Tensor, block: int) -> tuple[float, float]:
    """The sum of values `(count,)`, and that of their squares; `count` is a multiple of `block`, a power of two of at least 256.
    That is how many are summed in single precision, whatever the number of threads."""
    parts = parts_for(values.numel())
    made, scratch = torch.empty(values.numel() // block, 2, dtype=torch.float64), torch.empty(parts, 2, _ABREAST)
    _sum(array(values).reshape(-1, block // _ABREAST, _ABREAST), array(scratch), array(made), parts)
    total, square = made.sum(0).tolist()
    return total, square
