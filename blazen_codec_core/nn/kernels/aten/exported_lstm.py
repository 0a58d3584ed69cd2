"""LSTM layers of exported graphs: ONNX's own operator, because PyTorch's is traced frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

GATES = (0, 3, 1, 2)
"""ONNX's order i, o, f, c of gates, as indices of PyTorch's order i, f, g, o."""


class ExportedLSTM:
    """One layer as the operator `LSTM`, in float32; see `interface.LSTMKernel`. Outside of an export it gives zeros."""

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
        self._weight_ih, self._weight_hh, bias = (_reordered(values) for values in (weight_ih, weight_hh, bias))
        self._bias = torch.cat([bias, torch.zeros_like(bias)], dim=1)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        rows, frames, channels = x.shape
        state = hidden.float()[None], cell[None]
        y, _, after = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (x.float().transpose(0, 1), self._weight_ih, self._weight_hh, self._bias, None, *state),
            {"hidden_size": channels},
            dtypes=(torch.float32,) * 3,
            shapes=((frames, 1, rows, channels), (1, rows, channels), (1, rows, channels)),
        )
        cell.copy_(after[0])
        return torch.cat([hidden[:, None], y[:, 0].transpose(0, 1).to(x.dtype)], dim=1)


def _reordered(values: Tensor) -> Tensor:
    """Weights or biases `(4 * channels, …)` in ONNX's order, with a leading axis for the direction."""
    gates = values.float().chunk(4)
    return torch.cat([gates[index] for index in GATES])[None]
