"""LSTM layers that stream. The state of a stream is an `LSTMState`, in the `SequentialState` that its session keeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.aten.conv import tf32_scope
from ..kernels.bucketing import power_of_two_chunks
from ..kernels.interface import HoldsWeights, LSTMKernel
from .base import Layer, State, StreamSetup
from .released import ReleasedParameter

MIN_LSTM_FRAMES = 8
"""Below this many frames, setting up PyTorch's LSTM kernel costs more than it saves."""


@dataclasses.dataclass
class LSTMState(State):
    """State of all layers.

    Attributes:
        hidden: Outputs, `(batch, layers, channels)`.
        cell: Cells in float32, `(batch, layers, channels)`.
        dynamic_length: See `StreamSetup`.
    """

    hidden: Tensor
    cell: Tensor
    dynamic_length: bool


def _concat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _weight_of(kernel: HoldsWeights, number: int) -> Tensor:
    return kernel.weights()[number]


class _ZeroLSTM(nn.LSTM):
    """`nn.LSTM` that does not draw its weights from PyTorch's global generator, which is the host's."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class LSTM(Layer):
    """Stacked LSTM layers (Hochreiter & Schmidhuber 1997), with a residual connection around all of them."""

    benefits_from_batching = True
    allow_tf32 = False
    """Float32 may be computed in TF32, on devices that have it."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.channels, self.layers = channels, layers
        self.lstm = _ZeroLSTM(channels, channels, layers, batch_first=True, dtype=torch.float32)
        self._prepared: list[LSTMKernel] = []

    def reset_parameters(self, generator: torch.Generator) -> None:
        for parameter in self.lstm.parameters():
            bound = 1 / math.sqrt(self.channels)
            parameter.uniform_(-bound, bound, generator=generator)

    def init_state(self, setup: StreamSetup) -> LSTMState:
        hidden = setup.zeros(self.layers, self.channels)
        return LSTMState(hidden, hidden.float(), setup.dynamic_length)

    def prepare(self) -> None:
        found = [dispatch.lstm(*self._weights(layer), allow_tf32=self.allow_tf32) for layer in range(self.layers)]
        self._prepared = [kernel for kernel in found if kernel]  # all or none: the layers have one shape
        for layer, kernel in enumerate(self._prepared):
            if isinstance(kernel, HoldsWeights):
                self._release(layer, kernel)

    def _release(self, layer: int, kernel: HoldsWeights) -> None:
        for number, kind in enumerate(("ih", "hh")):
            name = f"weight_{kind}_l{layer}"
            setattr(self.lstm, name, ReleasedParameter(getattr(self.lstm, name), partial(_weight_of, kernel, number)))

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Input and recurrent weights, `(4 * channels, channels)` each, and the sum of both biases."""
        weight_ih, weight_hh = (getattr(self.lstm, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
        return weight_ih, weight_hh, getattr(self.lstm, f"bias_ih_l{layer}") + getattr(self.lstm, f"bias_hh_l{layer}")

    def step(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        return self.step_many([x], [state], last)[0]

    def step_many(self, xs: Sequence[Tensor], states: Sequence[LSTMState], last: bool) -> list[Tensor]:
        if not self._prepared or torch.is_grad_enabled():
            return [self._fallback(x, state, last) for x, state in zip(xs, states, strict=True)]
        if len({x.shape[1] for x in xs}) > 1:
            return [self.step(x, state, last) for x, state in zip(xs, states, strict=True)]
        return self._run_prepared(xs, states, last) if xs[0].shape[1] else list(xs)

    def _run_prepared(self, xs: Sequence[Tensor], states: Sequence[LSTMState], last: bool) -> list[Tensor]:
        """Run all streams together, so that the weights are read once a frame for all of them."""
        x, hidden, cell = (_concat(parts) for parts in (xs, [s.hidden for s in states], [s.cell for s in states]))
        y, next_hidden, next_cells = x, [], []
        for layer, kernel in enumerate(self._prepared):
            next_cell = cell[:, layer].clone()
            y = kernel(y, hidden[:, layer], next_cell, last and states[0].dynamic_length)
            next_hidden.append(y[:, -1])
            next_cells.append(next_cell)
            y = y[:, 1:]
        sizes = [x.shape[0] for x in xs]
        next_states = (torch.split(torch.stack(parts, dim=1), sizes) for parts in (next_hidden, next_cells))
        for state, h, c in zip(states, *next_states, strict=True):
            state.hidden, state.cell = h, c
        return list(torch.split(y.add_(x), sizes))

    def _fallback(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        if not x.shape[1]:
            return x
        chunks = power_of_two_chunks(x) if last and state.dynamic_length else [x]
        y = _concat([self._run_chunk(chunk, state) for chunk in chunks], dim=1)
        return y + x if torch.is_grad_enabled() else y.add_(x)

    def _run_chunk(self, x: Tensor, state: LSTMState) -> Tensor:
        if x.device.type == "cpu" and x.shape[1] < MIN_LSTM_FRAMES:
            return self._step_by_step(x, state)
        initial = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).to(x.dtype).contiguous())
        y: Tensor
        with tf32_scope(x.device, self.allow_tf32):
            y, (hidden, cell) = self.lstm(x, initial)
        state.hidden, state.cell = hidden.transpose(0, 1), cell.transpose(0, 1).float()
        return y

    def _step_by_step(self, x: Tensor, state: LSTMState) -> Tensor:
        """Run a few frames without PyTorch's kernel, whose setup costs as much as several frames.

        The input's contribution to all gates is one GEMM for all frames.
        """
        hidden, cell = list(state.hidden.unbind(1)), list(state.cell.to(x.dtype).unbind(1))
        for layer in range(self.layers):
            weight_ih, weight_hh, bias = self._weights(layer)
            h, c, outputs = hidden[layer], cell[layer], []
            for gates in F.linear(x, weight_ih, bias).unbind(1):
                i, f, g, o = torch.addmm(gates, h, weight_hh.t()).chunk(4, dim=1)
                c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
                h = torch.sigmoid(o) * torch.tanh(c)
                outputs.append(h)
            hidden[layer], cell[layer], x = h, c, torch.stack(outputs, dim=1)
        state.hidden, state.cell = torch.stack(hidden, dim=1), torch.stack(cell, dim=1).float()
        return x
