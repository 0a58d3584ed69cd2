"""Search for the nearest entry of a codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .jit import array, jit_parallel, num_threads_for, part
from .microkernel import address, lane_argmax
from .packing import kept, pack_panels, panel
from .simd import LANES

_ROWS = 64
"""Whose products with all entries stay in cache."""


@part
def _largest(values, best, where):  # type: ignore[no-untyped-def]
    """Index of the largest value; of several, the first."""
    lane_argmax(address(values), values.size // LANES, address(best), address(where))
    lane = 0
    for i in range(1, LANES):
        if best[i] > best[lane] or (best[i] == best[lane] and where[i] < where[lane]):
            lane = i
    return where[lane] * LANES + lane


@jit_parallel("void(f4[:, ::1], f4[:, :, ::1], f4[::1], f4[:, :, ::1], i8[::1], i8)")
def _search(rows: Any, table: Any, offset: Any, scratch: Any, indices: Any, parts: int) -> None:
    channels, entries, width = rows.shape[1], offset.size, table.shape[2]
    share, strip = -(-rows.shape[0] // parts), scratch.shape[1]
    for number in prange(parts):
        made, end = scratch[number], min(rows.shape[0], (number + 1) * share)
        best, where = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
        for first in range(number * share, end, strip):
            source, count = address(rows[first:]), min(strip, end - first)
            for place in range(table.shape[0]):
                start, to = address(offset[place * width :]), address(made[0, place * width :])
                panel(width // LANES, source, channels, 1, 0, channels, address(table[place]), start, to, entries, count)
            for row in range(count):
                indices[first + row] = _largest(made[row], best, where)


class Search:
    """The entry of a codebook that has the largest product with a vector, the first of them; see `dispatch.search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._table, self._offset = pack_panels(table.detach()), kept(offset, table)

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(-1, codes.shape[-1]).contiguous()
        indices, entries = torch.empty(len(rows), dtype=torch.int64), len(self._offset)
        parts = num_threads_for(len(rows) * entries)
        scratch = rows.new_empty(parts, min(_ROWS, max(1, len(rows))), entries)
        _search(array(rows), array(self._table), array(self._offset), array(scratch), array(indices), parts)
        return indices.reshape(codes.shape[:-1])
