"""Persistent LSTM: the weights are read once a frame for all signals together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .atomics import fetch_add, spin_until, test_and_set
from .direct_conv import DirectConv1d
from .jit import array, inline_jit, jit_parallel, num_threads_for
from .microkernel import address, gemm_rows_v4, is_available
from .simd import INDEX, LANES, Vector, address_of, intrinsic_from
from .vecmath import sigmoid, tanh

_PREFETCH_DISTANCE = 512
"""Weights that are prefetched while those before them are multiplied."""


def _emit_lstm_cell(builder: Any, gates: Any, cell: Any, out: Any) -> None:
    gates, cell, out = (address_of(builder, address) for address in (gates, cell, out))
    i, f, g, o = (Vector.load(builder, builder.gep(gates, [INDEX(gate * LANES)])) for gate in range(4))
    next_cell = sigmoid(f).fma(Vector.load(builder, cell), sigmoid(i) * tanh(g))
    next_cell.store(cell)
    (sigmoid(o) * tanh(next_cell)).store(out)


lstm_cell = intrinsic_from(_emit_lstm_cell)
"""`(gates, cell, out)`: output and next cell of one vector of channels, whose gates i, f, g, o are consecutive vectors."""


@inline_jit
def lstm_step(t, gates, weight, h, cell, scratch, first, end):  # type: ignore[no-untyped-def]
    """Compute frame `t` of channel blocks `first` to `end`, for all rows.

    Frames traverse the blocks forwards and backwards by turns: L2 does not hold all weights, but still holds the last ones used.
    """
    rows, channels, width = cell.shape[0], h.shape[2], 4 * LANES
    for number in range(first, end):
        block = number if t % 2 else first + end - 1 - number
        for row in range(rows):
            for gate in range(4):
                for i in range(LANES):
                    scratch[row, gate * LANES + i] = gates[row, t, gate, block, i]
        src, dst, step = address(h[0, t]), address(scratch), h.shape[1] * channels
        gemm_rows_v4(src, step, 1, 0, channels, address(weight[block]), dst, width, dst, width, _PREFETCH_DISTANCE, rows)
        for row in range(rows):
            lstm_cell(address(scratch[row]), address(cell[row, block]), address(h[row, t + 1, block * LANES :]))


@jit_parallel("void(f4[:, :, :, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], i4[:, ::1], i8)")
def _lstm_forward(gates: Any, weight: Any, h: Any, cell: Any, scratch: Any, claims: Any, parts: int) -> None:
    """Run all frames. Each thread takes its own blocks of a frame, then those that other threads have not claimed yet.

    So a single thread reaches the end as well. `claims[t]` holds a flag for each share, and last the number of those done.
    """
    blocks = cell.shape[1]
    share = -(-blocks // parts)
    for part in prange(parts):
        for t in range(gates.shape[1]):
            for other in range(parts):
                claimed = (part + other) % parts
                if not test_and_set(address(claims[t, claimed:])):
                    first, end = claimed * share, min(blocks, (claimed + 1) * share)
                    lstm_step(t, gates, weight, h, cell, scratch[part], first, end)
                    fetch_add(address(claims[t, parts:]))
            spin_until(address(claims[t, parts:]), parts)


def supports_lstm(weight: Tensor) -> bool:
    """Tell whether a layer with this recurrent weight `(4 * channels, channels)` can run here."""
    is_supported = is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return is_supported and weight.shape[1] % LANES == 0


def pack_recurrent_weight(weight: Tensor) -> Tensor:
    """Pack the recurrent weight of an LSTM `(4 * channels, channels)` in the order in which `lstm_forward` reads it."""
    channels = weight.shape[1]
    ordered = weight.detach().reshape(4, channels // LANES, LANES, channels).permute(1, 3, 0, 2)
    return ordered.reshape(channels // LANES, channels, 4 * LANES).contiguous()


def lstm_forward(gates: Tensor, weight: Tensor, cell: Tensor, outputs: Tensor) -> None:
    """Run an LSTM over the frames of several signals; the sums of one do not depend on the others.

    Args:
        gates: Input contribution to the gates, bias included, `(rows, frames, 4 * channels)`.
        weight: From `pack_recurrent_weight`.
        cell: `(rows, channels)`, the cell before the first frame; overwritten by that after the last.
        outputs: `(rows, 1 + frames, channels)`, whose first frame is the output before; the others are written.
    """
    (rows, frames, _), channels, parts = gates.shape, cell.shape[1], num_threads_for(weight.numel())
    blocks = channels // LANES
    # PyTorch aligns memory to cache lines, which makes vector stores fast
    scratch = torch.empty(parts, rows, 4 * LANES, dtype=torch.float32)
    _lstm_forward(
        array(gates).reshape(rows, frames, 4, blocks, LANES),
        array(weight),
        array(outputs),
        array(cell).reshape(rows, blocks, LANES),
        array(scratch),
        np.zeros((frames, parts + 1), np.int32),
        parts,
    )


class PersistentLSTM:
    """One LSTM layer; see `interface.LSTMKernel`.

    Args:
        weight_ih, weight_hh: `(4 * channels, channels)`, gates in PyTorch's order i, f, g, o.
        bias: `(4 * channels,)`.
    """

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
        self._input = DirectConv1d(weight_ih.t()[None], bias)
        self._weight = pack_recurrent_weight(weight_hh)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        rows, frames, channels = x.shape
        outputs = x.new_empty(rows, 1 + frames, channels)
        outputs[:, 0] = hidden
        lstm_forward(self._input(x, frames), self._weight, cell, outputs)
        return outputs
