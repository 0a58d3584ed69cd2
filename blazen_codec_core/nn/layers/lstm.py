"""LSTM layers that stream."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.aten.conv import tf32_scope
from ..kernels.backends import gpu_kernels_for, load_loops
from .base import Layer, State, StreamSetup


@dataclasses.dataclass
class LSTMState(State):
    """State of every layer: its output, and its cell in float32, both `(batch, layers, channels)`."""

    hidden: Tensor
    cell: Tensor
    any_length: bool


LSTMKernel = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
"""One layer: `(rows, frames, channels)`, its output and its cell before them, which is changed, and whether they end a signal, to
its outputs, the first of which is the one before."""


class CpuLSTMLayer:
    """`LSTMKernel` as the loops' own."""

    def __init__(self, of_input: Tensor, of_hidden: Tensor, bias: Tensor) -> None:
        self._entry = dispatch.convolution(of_input.t()[None], bias, lasting=True)
        self._weight = load_loops().pack_recurrent_weight(of_hidden)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        rows, frames, channels = x.shape
        outputs = x.new_empty(rows, 1 + frames, channels)
        outputs[:, 0] = hidden
        entry = partial(dispatch.run_bucketed, self._entry, stride=1) if last else self._entry
        gates = _joined([entry(row, frames) for row in torch.split(x, 1)])  # one by one, as if there were no others
        load_loops().recur(gates, self._weight, cell, outputs)
        return outputs


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


class _Undrawn(nn.LSTM):
    """PyTorch's own, whose weights are not drawn from the host's generator when it is made."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class LSTM(Layer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), layers one above the other, added to their input."""

    benefits_from_batching = True
    rough = False
    """Whether TF32 will do for float32, on devices that have it."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.channels, self.layers = channels, layers
        self.lstm = _Undrawn(channels, channels, layers, batch_first=True, dtype=torch.float32)
        self._prepared: list[LSTMKernel] = []

    def reset_parameters(self, generator: torch.Generator) -> None:
        for parameter in self.lstm.parameters():
            bound = 1 / math.sqrt(self.channels)
            parameter.uniform_(-bound, bound, generator=generator)

    def init_state(self, setup: StreamSetup) -> LSTMState:
        hidden = setup.zeros(self.layers, self.channels)
        return LSTMState(hidden, hidden.float(), setup.any_length)

    def prepare(self) -> None:
        gpu = gpu_kernels_for(self.lstm.weight_ih_l0.device)
        if gpu and gpu.supports_lstm(self._weights(0)[1]):
            self._prepared = [gpu.Recurrence(*self._weights(layer), rough=self.rough) for layer in range(self.layers)]
        elif (loops := load_loops()) and loops.supports_lstm(self._weights(0)[1]):
            self._prepared = [CpuLSTMLayer(*self._weights(layer)) for layer in range(self.layers)]

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the input and of the previous output, `(4 * channels, channels)`, and the sum of both biases."""
        of_input, of_hidden = (getattr(self.lstm, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
        return of_input, of_hidden, getattr(self.lstm, f"bias_ih_l{layer}") + getattr(self.lstm, f"bias_hh_l{layer}")

    def step(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        return self.step_many([x], [state], last)[0]

    def step_many(self, xs: Sequence[Tensor], states: Sequence[LSTMState], last: bool) -> list[Tensor]:
        if not self._prepared or torch.is_grad_enabled():
            return [self._alone(x, state, last) for x, state in zip(xs, states, strict=True)]
        if len({x.shape[1] for x in xs}) > 1:
            return [self.step(x, state, last) for x, state in zip(xs, states, strict=True)]
        return self._recur(xs, states, last) if xs[0].shape[1] else list(xs)

    def _recur(self, xs: Sequence[Tensor], states: Sequence[LSTMState], last: bool) -> list[Tensor]:
        """All signals frame by frame, with loops of our own, which read the weights once for all."""
        x, hidden, cell = (_joined(parts) for parts in (xs, [s.hidden for s in states], [s.cell for s in states]))
        y, hiddens, cells = x, [], []
        for layer, prepared in enumerate(self._prepared):
            y = prepared(y, hidden[:, layer], after := cell[:, layer].clone(), last and states[0].any_length)
            hiddens.append(y[:, -1])
            cells.append(after)
            y = y[:, 1:]
        sizes = [each.shape[0] for each in xs]
        after_each = (torch.split(torch.stack(parts, dim=1), sizes) for parts in (hiddens, cells))
        for state, h, c in zip(states, *after_each, strict=True):
            state.hidden, state.cell = h, c
        return list(torch.split(y.add_(x), sizes))

    def _alone(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        if not x.shape[1]:
            return x
        y = _joined(
            [self._part(part, state) for part in (dispatch.power_of_two_chunks(x) if last and state.any_length else [x])], dim=1
        )
        return y + x if torch.is_grad_enabled() else y.add_(x)

    def _part(self, x: Tensor, state: LSTMState) -> Tensor:
        if dispatch.steps_are_faster(x):
            return self._step_by_step(x, state)
        before = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).to(x.dtype).contiguous())
        y: Tensor
        with tf32_scope(x.device, self.rough):
            y, (hidden, cell) = self.lstm(x, before)
        state.hidden, state.cell = hidden.transpose(0, 1), cell.transpose(0, 1).float()
        return y

    def _step_by_step(self, x: Tensor, state: LSTMState) -> Tensor:
        """The same without the library's preparation, which costs as much as a dozen frames. The input's share of all gates is
        one product for all frames.
        """
        hidden, cell = list(state.hidden.unbind(1)), list(state.cell.to(x.dtype).unbind(1))
        for layer in range(self.layers):
            of_input, of_hidden, bias = self._weights(layer)
            h, c, outputs = hidden[layer], cell[layer], []
            for gates in F.linear(x, of_input, bias).unbind(1):
                entry, forget, new, out = torch.addmm(gates, h, of_hidden.t()).chunk(4, dim=1)
                c = torch.addcmul(torch.sigmoid(forget) * c, torch.sigmoid(entry), torch.tanh(new))
                h = torch.sigmoid(out) * torch.tanh(c)
                outputs.append(h)
            hidden[layer], cell[layer], x = h, c, torch.stack(outputs, dim=1)
        state.hidden, state.cell = torch.stack(hidden, dim=1), torch.stack(cell, dim=1).float()
        return x
