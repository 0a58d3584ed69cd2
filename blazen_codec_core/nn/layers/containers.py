"""Containers of layers: in sequence, some of them in tiles, and around a shortcut."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from ..kernels.epilogue import IDENTITY, Epilogue
from ..pipeline import Join, Split, Step
from .base import Layer, Pointwise, State, StreamSetup


@dataclasses.dataclass
class SequentialState(State):
    states: list[State]
    ragged: bool
    """Signals of the batch differ in length."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Cache blocking: these layers of a `Sequential` run on tiles of `frames` input frames."""

    layers: slice
    frames: int


class Sequential(Layer):
    """Layers in sequence, some of them in tiles."""

    def __init__(self, layers: Iterable[Layer], tiled: Tiling | None = None) -> None:
        super().__init__()
        self._order = tuple(layers)
        self.layers = nn.ModuleList(self._order)  # for the names of their weights
        self.tiled = tiled

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._order)

    @property
    def accepts_epilogue(self) -> bool:
        return self.tiled is None and self._order[-1].accepts_epilogue

    @property
    def accepts_prologue(self) -> bool:
        return self._order[0].accepts_prologue

    def _runs_tiled(self, x: Tensor, state: SequentialState) -> bool:
        """Tell whether to run in tiles: on a GPU no cache would hold a tile."""
        if self.tiled is None or state.ragged or torch.is_grad_enabled():
            return False
        return x.device.type == "cpu"

    def init_state(self, setup: StreamSetup) -> SequentialState:
        states, ragged = [], setup.lengths is not None
        for layer in self:
            states.append(layer.init_state(setup))
            setup = setup.next_setup(layer)
        return SequentialState(states, ragged)

    def step(self, x: Tensor, state: SequentialState, last: bool) -> Tensor:
        if self.tiled is None or not self._runs_tiled(x, state):
            return self._run_slice(slice(None), x, state, last)
        start, stop, _ = self.tiled.layers.indices(len(self._order))
        x = self._run_slice(slice(start), x, state, last)
        tiles = torch.split(x, self.tiled.frames, dim=1)
        parts = [
            self._run_slice(self.tiled.layers, tile, state, last and number == len(tiles)) for number, tile in enumerate(tiles, 1)
        ]
        return self._run_slice(slice(stop, None), torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], state, last)

    @property
    def _is_plain(self) -> bool:
        """Tell whether `step` is not overridden."""
        return type(self).step is Sequential.step

    def steps(self, state: SequentialState) -> list[Step | Split | Join]:
        if not self._is_plain:
            return super().steps(state)
        if self.tiled is None:
            return self._steps_of(slice(None), state)
        start, stop, _ = self.tiled.layers.indices(len(self._order))
        split = Split(self.tiled.frames)
        tail = self._steps_of(slice(stop, None), state)
        joined = [Join(split), *tail] if tail else []
        return [*self._steps_of(slice(start), state), split, *self._steps_of(self.tiled.layers, state), *joined]

    def _steps_of(self, part: slice, state: SequentialState) -> list[Step | Split | Join]:
        return list(_fused_steps(list(_flattened(self._order[part], state.states[part]))))

    def step_many(self, xs: Sequence[Tensor], states: Sequence[SequentialState], last: bool) -> list[Tensor]:
        """Layers that benefit run all streams together; others run one stream at a time, so that its data stays in cache."""
        if self.tiled or len(xs) == 1:
            return super().step_many(xs, states, last)
        signals = list(xs)
        for is_batched, run in groupby(enumerate(self), lambda numbered: numbered[1].benefits_from_batching):
            numbers, layers = zip(*run, strict=True)
            if is_batched:
                for number, layer in zip(numbers, layers, strict=True):
                    signals = layer.step_many(signals, [state.states[number] for state in states], last)
            else:
                part = slice(numbers[0], numbers[-1] + 1)
                outputs = (self._run_slice(part, x, state, last) for x, state in zip(signals, states, strict=True))
                signals = _pack_contiguous(outputs, len(signals))
        return signals

    def step_fused(
        self, prologue: Pointwise | None, x: Tensor, state: SequentialState, last: bool, epilogue: Epilogue = IDENTITY
    ) -> Tensor:
        if self._runs_tiled(x, state):
            return super().step_fused(prologue, x, state, last, epilogue)
        return self._run_slice(slice(None), x, state, last, prologue, epilogue)

    def _run_slice(
        self,
        part: slice,
        x: Tensor,
        state: SequentialState,
        last: bool,
        prologue: Pointwise | None = None,
        epilogue: Epilogue = IDENTITY,
    ) -> Tensor:
        """Run some of the layers. Pointwise ones become prologues or epilogues of others, which saves passes over memory."""
        layers, states, index = self._order[part], state.states[part], 0
        fusing = not torch.is_grad_enabled()
        while index < len(layers):
            layer, layer_state = layers[index], states[index]
            index += 1
            accepts_epilogue = fusing and layer.accepts_epilogue
            if prologue or accepts_epilogue:
                fused = epilogue if index == len(layers) else IDENTITY
                if accepts_epilogue and fused is IDENTITY and (found := _epilogue_from(layers[index : index + 2])):
                    index, fused = index + 1, found
                x, prologue = layer.step_fused(prologue, x, layer_state, last, fused), None
            elif fusing and isinstance(layer, Pointwise):
                prologue = layer
            else:
                x = layer.step(x, layer_state, last)
        return prologue.step(x, None, last) if prologue else x

    def frames_out(self, frames: int, last: bool) -> int:
        for layer in self:
            frames = layer.frames_out(frames, last)
        return frames


def _flattened(layers: Sequence[Layer], states: Sequence[State]) -> Iterator[tuple[Layer, State]]:
    for layer, state in zip(layers, states, strict=True):
        if isinstance(layer, Sequential) and layer._is_plain and layer.tiled is None:
            assert isinstance(state, SequentialState)
            yield from _flattened(layer._order, state.states)
        else:
            yield layer, state


def _fused_steps(pairs: Sequence[tuple[Layer, State]]) -> Iterator[Step | Split | Join]:
    layers, prologue, index = [layer for layer, _ in pairs], None, 0
    while index < len(layers):
        layer, state = pairs[index]
        index += 1
        if prologue or layer.accepts_epilogue:
            fused = IDENTITY
            if layer.accepts_epilogue and (found := _epilogue_from(layers[index : index + 2])):
                index, fused = index + 1, found
            yield partial(_run_fused, layer, prologue, state, fused)
            prologue = None
        elif isinstance(layer, Pointwise):
            prologue = layer
        else:
            yield from layer.steps(state)
    if prologue:
        yield from prologue.steps(State())


def _run_fused(layer: Layer, prologue: Pointwise | None, state: State, epilogue: Epilogue, x: Tensor, last: bool) -> Tensor:
    return layer.step_fused(prologue, x, state, last, epilogue)


def _epilogue_from(next_layers: Sequence[Layer]) -> Epilogue | None:
    """Next layer as an epilogue; `None` if it has no such form, or the layer after it takes it as a prologue."""
    if not next_layers or not isinstance(next_layers[0], Pointwise) or any(layer.accepts_prologue for layer in next_layers[1:]):
        return None
    return next_layers[0].as_epilogue


def _pack_contiguous(signals: Iterator[Tensor], count: int) -> list[Tensor]:
    """Collect `count` signals, those of equal shape in one block of memory, so that the heap does not fragment."""
    block: Tensor | None = None
    packed: list[Tensor] = []
    for number, signal in enumerate(signals):
        if block is None:
            block = signal.new_empty(count, *signal.shape)
        row = block[number]
        packed.append(row.copy_(signal) if signal.shape == row.shape else signal)
    return packed


@dataclasses.dataclass
class ResidualState(State):
    branch: State
    shortcut: State
    held: Tensor
    """Frames of the shortcut that the branch has not reached yet."""


class Residual(Layer):
    """`shortcut(x) + branch(x)`, holding the shortcut back until the branch has caught up.

    Args:
        channels: Output channels.
        branch: A layer that keeps the length of its input.
        shortcut: A pointwise layer; `None` for x itself.
    """

    def __init__(self, channels: int, branch: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.branch = branch
        self.shortcut = shortcut

    def init_state(self, setup: StreamSetup) -> ResidualState:
        shortcut = self.shortcut.init_state(setup) if self.shortcut else State()
        return ResidualState(self.branch.init_state(setup), shortcut, setup.zeros(0, self.channels))

    def step(self, x: Tensor, state: ResidualState, last: bool) -> Tensor:
        branch = self.branch
        if torch.is_grad_enabled() or not branch.accepts_epilogue:
            y = branch.step(x, state.branch, last)
            return self._add(y, self._shortcut(x, state, last), state)
        shortcut, held_frames = self._shortcut(x, state, last), state.held.shape[1]
        y = branch.step_fused(None, x, state.branch, last, Epilogue(residual=shortcut, residual_head=state.held))
        used = y.shape[1] - held_frames
        state.held = shortcut[:, used:].clone() if used >= 0 else torch.cat([state.held[:, used:], shortcut], dim=1)
        return y

    def _shortcut(self, x: Tensor, state: ResidualState, last: bool) -> Tensor:
        shortcut = self.shortcut
        return shortcut.step(x, state.shortcut, last) if shortcut else x

    def _add(self, y: Tensor, x: Tensor, state: ResidualState) -> Tensor:
        """Add as many frames of `[held | x]` to `y`, without copying them."""
        frames, held_frames = y.shape[1], state.held.shape[1]
        if torch.is_grad_enabled() or frames < held_frames:
            shortcut = torch.cat([state.held, x], dim=1)
            state.held = shortcut[:, frames:].clone()
            return y + shortcut[:, :frames]
        y[:, :held_frames].add_(state.held)
        y[:, held_frames:].add_(x[:, : frames - held_frames])
        state.held = x[:, frames - held_frames :].clone()
        return y

    def frames_out(self, frames: int, last: bool) -> int:
        return self.branch.frames_out(frames, last)
