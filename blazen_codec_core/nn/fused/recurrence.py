"""Recurrent layers: all weights are read for every frame, but only once for all signals that are there."""

from __future__ import annotations

from typing import Any

import torch
from numba import prange
from torch import Tensor

from .compiling import array, in_parts, part, parts_for
from .functions import sigmoid, tanh
from .registers import LANES, address, is_available, rows_by_four

_AHEAD = 512
"""Weights that are brought near while those before them are multiplied."""


@part
def _remember(gates, cell, out):  # type: ignore[no-untyped-def]
    for i in range(LANES):
        entry, forget, new = sigmoid(gates[i]), sigmoid(gates[LANES + i]), tanh(gates[2 * LANES + i])
        c = forget * cell[i] + entry * new
        cell[i] = c
        out[i] = sigmoid(gates[3 * LANES + i]) * tanh(c)


@in_parts("void(f4[:, :, :, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], i8)")
def _recur(gates: Any, weight: Any, h: Any, cell: Any, scratch: Any, parts: int) -> None:
    rows, blocks = cell.shape[:2]
    share, channels, width = -(-blocks // parts), h.shape[2], 4 * LANES
    for t in range(gates.shape[1]):
        for number in prange(parts):
            sums = scratch[number]
            for block in range(number * share, min(blocks, (number + 1) * share)):
                for row in range(rows):
                    for gate in range(4):
                        for i in range(LANES):
                            sums[row, gate * LANES + i] = gates[row, t, gate, block, i]
                source, to, step = address(h[0, t]), address(sums), h.shape[1] * channels
                rows_by_four(source, step, 1, 0, channels, address(weight[block]), to, width, to, width, _AHEAD, rows)
                for row in range(rows):
                    own = h[row, t + 1, block * LANES : (block + 1) * LANES]
                    _remember(sums[row], cell[row, block], own)


def suits_recurrence(weight: Tensor) -> bool:
    """Whether a layer with this recurrent weight `(4 * channels, channels)` can run here."""
    there = is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return there and weight.shape[1] % LANES == 0


def in_blocks(weight: Tensor) -> Tensor:
    """The recurrent weight of an LSTM `(4 * channels, channels)` in the order in which `recur` reads it."""
    channels = weight.shape[1]
    ordered = weight.detach().reshape(4, channels // LANES, LANES, channels).permute(1, 3, 0, 2)
    return ordered.reshape(channels // LANES, channels, 4 * LANES).contiguous()


def recur(gates: Tensor, weight: Tensor, cell: Tensor, outputs: Tensor) -> None:
    """An LSTM's frames one after the other, for several signals; the sums of one do not depend on the others.

    Args:
        gates: The input's share of the gates, bias included, `(rows, frames, 4 * channels)`.
        weight: From `in_blocks`.
        cell: `(rows, channels)`, before the first frame; becomes that after the last.
        outputs: `(rows, 1 + frames, channels)`, of which the first is the one before.
    """
    (rows, frames, _), channels, parts = gates.shape, cell.shape[1], parts_for(weight.numel())
    blocks = channels // LANES
    sums = torch.empty(parts, rows, 4 * LANES)  # PyTorch's memory begins with a line of cache, which vectors need to be fast
    _recur(
        array(gates).reshape(rows, frames, 4, blocks, LANES),
        array(weight),
        array(outputs),
        array(cell).reshape(rows, blocks, LANES),
        array(sums),
        parts,
    )
