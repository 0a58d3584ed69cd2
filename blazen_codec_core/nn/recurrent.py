"""Recurrent layers."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

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
        before = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).contiguous())
        y, (hidden, cell) = self.lstm(x, before)
        state.hidden, state.cell = hidden.transpose(0, 1), cell.transpose(0, 1)
        return y + x if torch.is_grad_enabled() else y.add_(x)
