"""Nearest codebook entry: the argmax of a GEMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import arguments
from .arguments import Codebook, Packed, Rows, Search, Terms, signal_args, signature
from .jit import inline_jit, jit
from .microkernel import address, array, int64_array
from .packing import bias_or_zeros, gemm_panel, pack_panels, panel_vectors
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


@jit(signature(Codebook, Search))
def _search(codebook: Any, search: Any) -> None:
    b, s = Codebook(*codebook), Search(*search)
    terms, width = Terms(1, 0, b.channels), b.vectors * LANES
    scores, indices = array(s.scores, (s.strip, b.entries)), int64_array(s.indices, (s.queries,))
    best, best_index = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    for first in range(0, s.queries, s.strip):
        count, source = min(s.strip, s.queries - first), Rows(s.rows + 4 * first * b.channels, b.channels)
        for panel in range(b.entries // width):
            table, target = b.table + 4 * panel * b.channels * width, Rows(s.scores + 4 * panel * width, b.entries)
            gemm_panel(b.vectors, source, terms, table, Rows(b.offset + 4 * panel * width, 0), target, count)
        for row in range(count):
            indices[first + row] = _argmax(scores[row], best, best_index)


class CodebookSearch:
    """Index of the entry with the largest product with a vector, the first of them; see `dispatch.codebook_search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._channels, self._entries = table.shape
        self._packed = Packed(pack_panels(table), bias_or_zeros(offset, table))
        vectors = panel_vectors(self._entries)
        self._codebook = tuple(Codebook(self._channels, self._entries, vectors, *self._packed.addresses))
        self._search = _search.compiled()

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(1, -1, codes.shape[-1]).contiguous()
        address, _, _, count, _ = signal_args(rows, channels=self._channels)
        indices = arguments.allocate(count, dtype=torch.int64)
        scores = arguments.allocate(min(_ROWS, max(1, count)), self._entries)
        search = tuple(Search(count, scores.shape[0], address, scores.data_ptr(), indices.data_ptr()))
        self._search(self._codebook, search)
        return indices.reshape(codes.shape[:-1])
