"""Persistent LSTM: the weights are read once a frame for all signals together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import arguments
from .arguments import Packed, Recurrence, Rows, Terms, require_float32, signature
from .direct_conv import DirectConv1d
from .jit import jit
from .microkernel import address, array, gemm_rows_v4, is_available
from .simd import INDEX, LANES, Vector, address_of, intrinsic_from
from .vecmath import sigmoid, tanh

_PREFETCH_DISTANCE = 8192
"""Weights that are prefetched while those before them are multiplied."""


def _emit_lstm_cell(builder: Any, gates: Any, cell: Any, out: Any) -> None:
    gates, cell, out = (address_of(builder, address) for address in (gates, cell, out))
    i, f, g, o = (Vector.load(builder, builder.gep(gates, [INDEX(gate * LANES)])) for gate in range(4))
    next_cell = sigmoid(f).fma(Vector.load(builder, cell), sigmoid(i) * tanh(g))
    next_cell.store(cell)
    (sigmoid(o) * tanh(next_cell)).store(out)


lstm_cell = intrinsic_from(_emit_lstm_cell)
"""`(gates, cell, out)`: output and next cell of one vector of channels, whose gates i, f, g, o are consecutive vectors."""


@jit(signature(Recurrence))
def _lstm_forward(recurrence: Any) -> None:
    """Run all frames of all rows.

    Frames traverse the blocks forwards and backwards by turns: L2 does not hold all weights, but still holds the last ones used.
    """
    r = Recurrence(*recurrence)
    blocks, width = r.channels // LANES, 4 * LANES
    gates = array(r.gates, (r.rows, r.frames, 4, blocks, LANES))
    weight, h = array(r.weight, (blocks, r.channels, width)), array(r.outputs, (r.rows, r.frames + 1, r.channels))
    cell, scratch = array(r.cell, (r.rows, blocks, LANES)), array(r.scratch, (r.rows, width))
    terms, sums = Terms(1, 0, r.channels), Rows(r.scratch, width)
    for t in range(r.frames):
        for number in range(blocks):
            block = number if t % 2 else blocks - 1 - number
            for row in range(r.rows):
                for gate in range(4):
                    for i in range(LANES):
                        scratch[row, gate * LANES + i] = gates[row, t, gate, block, i]
            source = Rows(address(h[0, t]), (r.frames + 1) * r.channels)
            gemm_rows_v4(source, terms, address(weight[block]), sums, sums, _PREFETCH_DISTANCE, r.rows)
            for row in range(r.rows):
                lstm_cell(address(scratch[row]), address(cell[row, block]), address(h[row, t + 1, block * LANES :]))


def supports_lstm(weight: Tensor) -> bool:
    """Tell whether a layer with this recurrent weight `(4 * channels, channels)` can run here."""
    is_supported = is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return is_supported and weight.shape[1] % LANES == 0


def pack_recurrent_weight(weight: Tensor) -> Tensor:
    """Order the recurrent weight of an LSTM `(4 * channels, channels)` as the kernel reads it."""
    channels = weight.shape[1]
    ordered = weight.detach().reshape(4, channels // LANES, LANES, channels).permute(1, 3, 0, 2)
    return ordered.reshape(channels // LANES, channels, 4 * LANES)


def unpack_recurrent_weight(packed: Tensor) -> Tensor:
    """Recurrent weight of an LSTM `(4 * channels, channels)`: the inverse of `pack_recurrent_weight`."""
    blocks, channels, _ = packed.shape
    return packed.reshape(blocks, channels, 4, LANES).permute(2, 0, 3, 1).reshape(4 * channels, channels)


class PersistentLSTM:
    """One LSTM layer; see `interface.LSTMKernel`. The sums of one signal do not depend on the others.

    Args:
        weight_ih, weight_hh: `(4 * channels, channels)`, gates in PyTorch's order i, f, g, o.
        bias: `(4 * channels,)`.
    """

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
        self._input = DirectConv1d(weight_ih.t()[None], bias)
        self._packed, self._channels = Packed(pack_recurrent_weight(weight_hh)), weight_hh.shape[1]
        self._forward = _lstm_forward.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        (weight_ih,) = self._input.weights()
        return weight_ih[0].t().contiguous(), unpack_recurrent_weight(self._packed[0])

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        gates = self._input(x, x.shape[1])
        rows, frames, _ = gates.shape
        if cell.shape != (rows, self._channels) or not cell.is_contiguous():
            raise ValueError(f"cell is {tuple(cell.shape)} with strides {cell.stride()}; expected {rows} by {self._channels}")
        require_float32(cell)
        outputs = arguments.allocate(rows, 1 + frames, self._channels)
        outputs[:, 0] = hidden
        scratch = arguments.allocate(rows, 4 * LANES)
        addresses = (gates.data_ptr(), *self._packed.addresses, cell.data_ptr(), outputs.data_ptr(), scratch.data_ptr())
        self._forward(tuple(Recurrence(rows, frames, self._channels, *addresses)))
        return outputs
