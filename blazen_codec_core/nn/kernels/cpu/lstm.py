"""Persistent LSTM: weights are read once a frame for all signals together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .atomics import fetch_add, taken, wait_for
from .jit import array, jit_parallel, num_threads_for, part
from .microkernel import address, gemm_rows_v4, is_available
from .simd import INDEX, LANES, Vector, address_of, written
from .vecmath import sigmoid, tanh

_AHEAD = 512
"""Weights that are brought near while those before them are multiplied."""


def _write_remember(builder: Any, gates: Any, cell: Any, out: Any) -> None:
    gates, cell, out = (address_of(builder, address) for address in (gates, cell, out))
    entry, forget, new, show = (Vector.load(builder, builder.gep(gates, [INDEX(gate * LANES)])) for gate in range(4))
    kept = sigmoid(forget).fma(Vector.load(builder, cell), sigmoid(entry) * tanh(new))
    kept.store(cell)
    (sigmoid(show) * tanh(kept)).store(out)


_remember = written(_write_remember)
"""`(gates, cell, out)`: the output and the new cell of a vector of channels, whose four gates lie one after the other."""


@part
def _step(t, gates, weight, h, cell, sums, first, end):  # type: ignore[no-untyped-def]
    """One frame of some blocks of channels, for all rows. Frames go through the blocks forwards and backwards by turns: the
    nearer cache has no place for all, but those where the way turns are still there.
    """
    rows, channels, width = cell.shape[0], h.shape[2], 4 * LANES
    for number in range(first, end):
        block = number if t % 2 else first + end - 1 - number
        for row in range(rows):
            for gate in range(4):
                for i in range(LANES):
                    sums[row, gate * LANES + i] = gates[row, t, gate, block, i]
        source, to, step = address(h[0, t]), address(sums), h.shape[1] * channels
        gemm_rows_v4(source, step, 1, 0, channels, address(weight[block]), to, width, to, width, _AHEAD, rows)
        for row in range(rows):
            _remember(address(sums[row]), address(cell[row, block]), address(h[row, t + 1, block * LANES :]))


@jit_parallel("void(f4[:, :, :, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], i4[:, ::1], i8)")
def _recur(gates: Any, weight: Any, h: Any, cell: Any, scratch: Any, turns: Any, parts: int) -> None:
    """Each thread takes its own blocks of a frame, and those of others that have not come to them, so that one thread alone comes
    to the end too. `turns[t]` says which are taken and, last, how many are done.
    """
    blocks = cell.shape[1]
    share = -(-blocks // parts)
    for number in prange(parts):
        for t in range(gates.shape[1]):
            for other in range(parts):
                own = (number + other) % parts
                if not taken(address(turns[t, own:])):
                    _step(t, gates, weight, h, cell, scratch[number], own * share, min(blocks, (own + 1) * share))
                    fetch_add(address(turns[t, parts:]))
            wait_for(address(turns[t, parts:]), parts)


def supports_lstm(weight: Tensor) -> bool:
    """Tell whether a layer with this recurrent weight `(4 * channels, channels)` can run here."""
    there = is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return there and weight.shape[1] % LANES == 0


def pack_recurrent_weight(weight: Tensor) -> Tensor:
    """The recurrent weight of an LSTM `(4 * channels, channels)` in the order in which `recur` reads it."""
    channels = weight.shape[1]
    ordered = weight.detach().reshape(4, channels // LANES, LANES, channels).permute(1, 3, 0, 2)
    return ordered.reshape(channels // LANES, channels, 4 * LANES).contiguous()


def recur(gates: Tensor, weight: Tensor, cell: Tensor, outputs: Tensor) -> None:
    """An LSTM's frames one after the other, for several signals; the sums of one do not depend on the others.

    Args:
        gates: The input's share of the gates, bias included, `(rows, frames, 4 * channels)`.
        weight: From `pack_recurrent_weight`.
        cell: `(rows, channels)`, before the first frame; becomes that after the last.
        outputs: `(rows, 1 + frames, channels)`, of which the first is the one before.
    """
    (rows, frames, _), channels, parts = gates.shape, cell.shape[1], num_threads_for(weight.numel())
    blocks = channels // LANES
    # PyTorch's memory begins with a line of cache, which vectors need to be fast
    sums = torch.empty(parts, rows, 4 * LANES, dtype=torch.float32)
    _recur(
        array(gates).reshape(rows, frames, 4, blocks, LANES),
        array(weight),
        array(outputs),
        array(cell).reshape(rows, blocks, LANES),
        array(sums),
        np.zeros((frames, parts + 1), np.int32),
        parts,
    )
