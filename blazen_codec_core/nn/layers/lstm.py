"""LSTM layers that stream. The state of a stream is an `LSTMState`, in the `SequentialState` that its session keeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.aten.conv import tf32_scope
from ..kernels.bucketing import power_of_two_chunks
from ..kernels.exporting import is_exporting
from ..kernels.interface import HoldsWeights, LSTMKernel
from ..pipeline import Join, Split, Step
from .base import Layer, State, StreamSetup
from .released import ReleasedParameter

MIN_LSTM_FRAMES = 8
"""Below this many frames, setting up PyTorch's LSTM kernel costs more than it saves."""


@dataclasses.dataclass
class LSTMState(State):
    """State of all layers.

    Attributes:
        hidden: Outputs of each layer, `(batch, channels)`.
        cell: Cells of each layer in float32, `(batch, channels)`.
        dynamic_length: See `StreamSetup`.
    """

    hidden: list[Tensor]
    cell: list[Tensor]
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
        hidden = [setup.zeros(1, self.channels)[:, 0] for _ in range(self.layers)]
        return LSTMState(hidden, [h.float().clone() for h in hidden], setup.dynamic_length)

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
        return self.step_many([x], [state], [last])[0]

    @property
    def benefits_from_batching(self) -> bool:
        return bool(self._prepared)

    def steps(self, state: LSTMState) -> list[Step | Split | Join]:
        """One step a layer; values between them are pairs of the input and the layer's output."""
        if not self._prepared:
            return super().steps(state)

        def step_of(layer: int) -> Step:
            def step(value: Any, last: bool) -> Any:
                x, y = value if layer else (value, value)
                y = self._run_layer(layer, y, [state], [last])
                if layer + 1 < self.layers:
                    return x, y
                return y.add_(x) if x.shape[1] else x

            return step

        return [step_of(layer) for layer in range(self.layers)]

    def step_many(self, xs: Sequence[Tensor], states: Sequence[LSTMState], lasts: Sequence[bool]) -> list[Tensor]:
        if is_exporting():
            return [self._run_prepared([x], [state], [last])[0] for x, state, last in zip(xs, states, lasts, strict=True)]
        if not self._prepared or torch.is_grad_enabled():
            return [self._fallback(x, state, last) for x, state, last in zip(xs, states, lasts, strict=True)]
        parts: list[list[Tensor]] = [[] for _ in xs]
        start = 0
        for end in sorted({x.shape[1] for x in xs} - {0}):  # up to the end of the shortest, then without it, and so on
            rows = [row for row, x in enumerate(xs) if x.shape[1] >= end]
            part = [xs[row][:, start:end] for row in rows]
            made = self._run_prepared(part, [states[row] for row in rows], [lasts[row] for row in rows])
            for row, y in zip(rows, made, strict=True):
                parts[row].append(y)
            start = end
        return [_concat(ys, dim=1) if ys else x for ys, x in zip(parts, xs, strict=True)]

    def _run_prepared(self, xs: Sequence[Tensor], states: Sequence[LSTMState], lasts: Sequence[bool]) -> list[Tensor]:
        """Run streams of equal length together, so that the weights are read once a frame for all of them."""
        x = y = _concat(xs)
        for layer in range(self.layers):
            y = self._run_layer(layer, y, states, lasts)
        return list(torch.split(y.add_(x), [x.shape[0] for x in xs]))

    def _run_layer(self, layer: int, x: Tensor, states: Sequence[LSTMState], lasts: Sequence[bool]) -> Tensor:
        """Run one layer on the streams whose rows are concatenated in `x`; there may be no frames."""
        if not x.shape[1]:
            return x
        hidden = _concat([state.hidden[layer] for state in states])
        cell = torch.cat([state.cell[layer] for state in states])  # a copy, which the kernel updates
        ends = any(last and state.dynamic_length for state, last in zip(states, lasts, strict=True))
        y = self._prepared[layer](x, hidden, cell, ends)
        sizes = [state.hidden[layer].shape[0] for state in states]
        for state, h, c in zip(states, torch.split(y[:, -1].clone(), sizes), torch.split(cell, sizes), strict=True):
            state.hidden[layer], state.cell[layer] = h, c
        return y[:, 1:]

    def _fallback(self, x: Tensor, state: LSTMState, last: bool) -> Tensor:
        if not x.shape[1]:
            return x
        chunks = power_of_two_chunks(x) if last and state.dynamic_length else [x]
        y = _concat([self._run_chunk(chunk, state) for chunk in chunks], dim=1)
        return y + x if torch.is_grad_enabled() else y.add_(x)

    def _run_chunk(self, x: Tensor, state: LSTMState) -> Tensor:
        if x.device.type == "cpu" and x.shape[1] < MIN_LSTM_FRAMES:
            return self._step_by_step(x, state)
        initial = torch.stack(state.hidden), torch.stack(state.cell).to(x.dtype)
        y: Tensor
        with tf32_scope(x.device, self.allow_tf32):
            y, (hidden, cell) = self.lstm(x, initial)
        state.hidden, state.cell = list(hidden), list(cell.float())
        return y

    def _step_by_step(self, x: Tensor, state: LSTMState) -> Tensor:
        """Run a few frames without PyTorch's kernel, whose setup costs as much as several frames.

        The input's contribution to all gates is one GEMM for all frames.
        """
        for layer in range(self.layers):
            weight_ih, weight_hh, bias = self._weights(layer)
            h, c, outputs = state.hidden[layer], state.cell[layer].to(x.dtype), []
            for gates in F.linear(x, weight_ih, bias).unbind(1):
                i, f, g, o = torch.addmm(gates, h, weight_hh.t()).chunk(4, dim=1)
                c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
                h = torch.sigmoid(o) * torch.tanh(c)
                outputs.append(h)
            state.hidden[layer], state.cell[layer], x = h, c.float(), torch.stack(outputs, dim=1)
        return x
