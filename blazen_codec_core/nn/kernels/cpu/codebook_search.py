"""Nearest codebook entry: the argmax of a GEMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .jit import array, inline_jit, jit_parallel, num_threads_for
from .microkernel import address
from .packing import bias_or_zeros, gemm_panel, pack_panels
from .reductions import lane_argmax
from .simd import LANES

_ROWS = 64
"""Vectors searched together; their scores for all entries stay in cache."""


@inline_jit
def _argmax(scores, best, best_index):  # type: ignore[no-untyped-def]
    """Index of the largest score; of several, the first."""
    lane_argmax(address(scores), scores.size // LANES, address(best), address(best_index))
    lane = 0
    for i in range(1, LANES):
        if best[i] > best[lane] or (best[i] == best[lane] and best_index[i] < best_index[lane]):
            lane = i
    return best_index[lane] * LANES + lane


@jit_parallel("void(f4[:, ::1], f4[:, :, ::1], f4[::1], f4[:, :, ::1], i8[::1], i8)")
def _search(rows: Any, table: Any, offset: Any, scratch: Any, indices: Any, parts: int) -> None:
    channels, entries, width = rows.shape[1], offset.size, table.shape[2]
    share, strip = -(-rows.shape[0] // parts), scratch.shape[1]
    for part in prange(parts):
        scores, end = scratch[part], min(rows.shape[0], (part + 1) * share)
        best, best_index = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
        for first in range(part * share, end, strip):
            src, count = address(rows[first:]), min(strip, end - first)
            for panel in range(table.shape[0]):
                init, dst = address(offset[panel * width :]), address(scores[0, panel * width :])
                gemm_panel(width // LANES, src, channels, 1, 0, channels, address(table[panel]), init, dst, entries, count)
            for row in range(count):
                indices[first + row] = _argmax(scores[row], best, best_index)


class CodebookSearch:
    """Index of the entry with the largest product with a vector, the first of them; see `dispatch.codebook_search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._table, self._offset = pack_panels(table.detach()), bias_or_zeros(offset, table)

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(-1, codes.shape[-1]).contiguous()
        indices, entries = torch.empty(len(rows), dtype=torch.int64), len(self._offset)
        parts = num_threads_for(len(rows) * entries)
        scratch = rows.new_empty(parts, min(_ROWS, max(1, len(rows))), entries)
        _search(array(rows), array(self._table), array(self._offset), array(scratch), array(indices), parts)
        return indices.reshape(codes.shape[:-1])
