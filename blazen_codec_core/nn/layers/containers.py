"""Containers of layers: in sequence, some of them in tiles, and around a shortcut."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from ..kernels.epilogue import IDENTITY, Epilogue
from ..kernels.exporting import is_exporting
from ..pipeline import Join, Split, Step, run_steps
from .base import Layer, State, StreamSetup, check_no_gradients
from .fusion import FusableLayer, Stage, bound_steps, fuse, run_stages, takes_epilogue, takes_prologue


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


class Sequential(FusableLayer):
    """Layers in sequence, some of them in tiles.

    Once it is prepared, it runs the stages that `fusion.fuse` plans; where gradients are recorded, it runs layer by layer.
    """

    def __init__(self, layers: Iterable[Layer], tiled: Tiling | None = None) -> None:
        super().__init__()
        self._order = tuple(layers)
        self.layers = nn.ModuleList(self._order)  # for the names of their weights
        self.tiled = tiled
        self._whole: tuple[Stage, ...] = ()
        """Stages of all layers; none until it is prepared."""
        self._parts: dict[tuple[int, int], tuple[Stage, ...]] = {}
        """Stages of a part of the layers, by the first and the one after the last."""

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._order)

    def prepare(self) -> None:
        self._parts.clear()
        self._whole = fuse(self._order, 0, len(self._order))

    @property
    def takes_epilogue(self) -> bool:
        return bool(self._whole) and self.tiled is None and takes_epilogue(self._order[-1])

    @property
    def takes_prologue(self) -> bool:
        return bool(self._whole) and self.tiled is None and takes_prologue(self._order[0])

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

    def step_fused(self, prologue: Epilogue, x: Tensor, state: SequentialState, last: bool, epilogue: Epilogue) -> Tensor:
        if self._whole:
            check_no_gradients(x)
        if self.tiled is None and self._whole and not torch.is_grad_enabled():
            return run_stages(self._whole, x, state.states, last, prologue, epilogue)
        return self._run_part(0, len(self._order), x, state, last)

    def _run_part(self, start: int, stop: int, x: Tensor, state: SequentialState, last: bool) -> Tensor:
        """Run the layers `start` to `stop`, with all that are tiled or none."""
        first, end, _ = self.tiled.layers.indices(len(self._order)) if self.tiled else (stop, stop, 1)
        if self.tiled is None or first < start or end > stop or not self._runs_tiled(x, state):
            return self._run(start, stop, x, state, last)
        x = self._run(start, first, x, state, last)
        split = Split(self.tiled.frames)
        [(x, _)] = run_steps([split, lambda tile, last: self._run(first, end, tile, state, last), Join(split)], x, last)
        return self._run(end, stop, x, state, last)

    @property
    def _is_plain(self) -> bool:
        """Tell whether `step` is not overridden."""
        return type(self).step is Sequential.step and type(self).step_fused is Sequential.step_fused

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
        pairs = list(_flattened(self._order[part], state.states[part]))
        if not self._whole:
            return [step for layer, layer_state in pairs for step in layer.steps(layer_state)]
        layers, states = [layer for layer, _ in pairs], [layer_state for _, layer_state in pairs]
        return list(bound_steps(fuse(layers, 0, len(layers)), states))

    @property
    def benefits_from_batching(self) -> bool:
        benefits = [layer.benefits_from_batching for layer in self]
        return self._is_plain and any(benefits) and not (self.tiled and any(benefits[self.tiled.layers]))

    def step_many(self, xs: Sequence[Tensor], states: Sequence[SequentialState], lasts: Sequence[bool]) -> list[Tensor]:
        """Layers that benefit run all streams together; others run one stream at a time, so that its data stays in cache."""
        if len(xs) == 1 or not self.benefits_from_batching:
            return super().step_many(xs, states, lasts)
        signals = list(xs)
        for is_batched, run in groupby(enumerate(self), lambda numbered: numbered[1].benefits_from_batching):
            numbers, layers = zip(*run, strict=True)
            if is_batched:
                for number, layer in zip(numbers, layers, strict=True):
                    signals = layer.step_many(signals, [state.states[number] for state in states], lasts)
            else:
                start, stop = numbers[0], numbers[-1] + 1
                outputs = (self._run_part(start, stop, *stream) for stream in zip(signals, states, lasts, strict=True))
                signals = _pack_contiguous(outputs, len(signals))
        return signals

    def _run(self, start: int, stop: int, x: Tensor, state: SequentialState, last: bool) -> Tensor:
        """Run the layers `start` to `stop`."""
        if not self._whole or torch.is_grad_enabled():
            for layer, layer_state in zip(self._order[start:stop], state.states[start:stop], strict=True):
                x = layer.step(x, layer_state, last)
            return x
        if (start, stop) not in self._parts:
            self._parts[start, stop] = fuse(self._order, start, stop)
        return run_stages(self._parts[start, stop], x, state.states, last)

    def frames_out(self, frames: int, last: bool) -> int:
        for layer in self._order:
            frames = layer.frames_out(frames, last)
        return frames


def _flattened(layers: Sequence[Layer], states: Sequence[State]) -> Iterator[tuple[Layer, State]]:
    """Layers with their states, with those of inner chains in place of the chains."""
    for layer, state in zip(layers, states, strict=True):
        if isinstance(layer, Sequential) and layer._is_plain and layer.tiled is None:
            yield from _flattened(layer._order, cast(SequentialState, state).states)
        else:
            yield layer, state


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
        self._fuses_residual = False

    def prepare(self) -> None:
        self._fuses_residual = takes_epilogue(self.branch)

    def init_state(self, setup: StreamSetup) -> ResidualState:
        shortcut = self.shortcut.init_state(setup) if self.shortcut else State()
        return ResidualState(self.branch.init_state(setup), shortcut, setup.zeros(0, self.channels))

    def step(self, x: Tensor, state: ResidualState, last: bool) -> Tensor:
        branch, held = self.branch, state.held
        shortcut = self.shortcut.step(x, state.shortcut, last) if self.shortcut else x
        if torch.is_grad_enabled() or not self._fuses_residual:
            return self._add(branch.step(x, state.branch, last), shortcut, state)
        fusable: FusableLayer = branch  # type: ignore[assignment]
        y = fusable.step_fused(IDENTITY, x, state.branch, last, Epilogue(residual=shortcut, residual_head=held))
        used = y.shape[1] - held.shape[1]
        state.held = shortcut[:, used:].clone() if used >= 0 else torch.cat([held[:, used:], shortcut], dim=1)
        return y

    def _add(self, y: Tensor, x: Tensor, state: ResidualState) -> Tensor:
        """Add as many frames of `[held | x]` to `y`, without copying them."""
        frames, held_frames = y.shape[1], state.held.shape[1]
        if torch.is_grad_enabled() or frames < held_frames:
            shortcut = torch.cat([state.held, x], dim=1)
            state.held = shortcut[:, frames:].clone()
            if is_exporting():  # channels first, as convolutions before and after have them
                return (y.transpose(1, 2) + shortcut[:, :frames].transpose(1, 2)).transpose(1, 2)
            return y + shortcut[:, :frames]
        y[:, :held_frames].add_(state.held)
        y[:, held_frames:].add_(x[:, : frames - held_frames])
        state.held = x[:, frames - held_frames :].clone()
        return y

    def frames_out(self, frames: int, last: bool) -> int:
        return self.branch.frames_out(frames, last)
