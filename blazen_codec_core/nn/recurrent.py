"""Recurrent layers."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels
from .layer import Layer, State, StreamSetup


@dataclasses.dataclass
class LSTMState(State):
    """Of every layer: its output and its cell, `(batch, layers, channels)`."""

    hidden: Tensor
    cell: Tensor


class LSTM(Layer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), layers one above the other, added to their input."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.channels, self.layers = channels, layers
        self.lstm = nn.LSTM(channels, channels, layers, batch_first=True)

    def reset_parameters(self, generator: torch.Generator) -> None:
        for parameter in self.lstm.parameters():
            bound = 1 / math.sqrt(self.channels)
            parameter.uniform_(-bound, bound, generator=generator)

    def init_state(self, setup: StreamSetup) -> LSTMState:
        return LSTMState(setup.zeros(self.layers, self.channels), setup.zeros(self.layers, self.channels))

    def step(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        if not x.shape[1]:
            return x
        if kernels.steps_are_faster(x):
            y = self._step_by_step(x, state)
        else:
            before = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).contiguous())
            y, (hidden, cell) = self.lstm(x, before)
            state.hidden, state.cell = hidden.transpose(0, 1), cell.transpose(0, 1)
        return y + x if torch.is_grad_enabled() else y.add_(x)

    def _step_by_step(self, x: Tensor, state: LSTMState) -> Tensor:
        """The same without the library's preparation, which costs as much as a dozen frames. The input's share of all gates is
        one product for all frames."""
        hidden, cell = list(state.hidden.unbind(1)), list(state.cell.unbind(1))
        for layer in range(self.layers):
            of_input, of_hidden = (getattr(self.lstm, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
            bias = getattr(self.lstm, f"bias_ih_l{layer}") + getattr(self.lstm, f"bias_hh_l{layer}")
            h, c, outputs = hidden[layer], cell[layer], []
            for gates in F.linear(x, of_input, bias).unbind(1):
                entry, forget, new, out = torch.addmm(gates, h, of_hidden.t()).chunk(4, dim=1)
                c = torch.addcmul(torch.sigmoid(forget) * c, torch.sigmoid(entry), torch.tanh(new))
                h = torch.sigmoid(out) * torch.tanh(c)
                outputs.append(h)
            hidden[layer], cell[layer], x = h, c, torch.stack(outputs, dim=1)
        state.hidden, state.cell = torch.stack(hidden, dim=1), torch.stack(cell, dim=1)
        return x
