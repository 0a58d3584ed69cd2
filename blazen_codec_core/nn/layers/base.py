"""The layer protocol: weights in the module, stream state outside it.

Signals are `(batch, time, channels)`, because there a convolution is a sum of matrix products on shifted views.
A stream begins with `init_state`, goes through any number of `step` calls and ends with one whose `last` is true.
A step may return fewer frames than it was given, or none; over the whole stream the frames returned are the
same for any cut of the input. Weights are never written, so one module serves any number of streams at once.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.backends import load_cpu_kernels
from ..kernels.epilogue import IDENTITY, Epilogue

NoiseSource = Callable[[int, int, int], Tensor]
"""`(layer, position, count)` to `(batch or 1, count, 1)` standard normal noise."""

StateT = TypeVar("StateT", bound="State")


COUNTS = "counts"
"""Metadata key of a state's field that counts: it grows by the same amount at every step until the signal ends."""


@dataclasses.dataclass(frozen=True)
class StreamSetup:
    """Settings that the state of a new stream depends on.

    Attributes:
        batch: Number of signals.
        device: Device of the state and the signal.
        dtype: Floating dtype of the signal.
        noise: Source of noise blocks; `None` switches them off.
        dynamic_length: The signal may have any length; else its length recurs (see `dispatch.run_bucketed`).
        lengths: Frames of each signal, if they differ; what follows a signal's end is padding.
    """

    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    noise: NoiseSource | None = None
    dynamic_length: bool = True
    lengths: tuple[int, ...] | None = None

    def next_setup(self, layer: Layer) -> StreamSetup:
        """Setup for the layer that follows `layer`."""
        if self.lengths is None:
            return self
        return dataclasses.replace(self, lengths=tuple(layer.frames_out(frames, True) for frames in self.lengths))

    def zeros(self, frames: int, channels: int) -> Tensor:
        """Zeros `(batch, frames, channels)`."""
        return torch.zeros(self.batch, frames, channels, device=self.device, dtype=self.dtype)


@dataclasses.dataclass
class State:
    """Values that a layer keeps between steps: tensors with the batch first, other states, and plain values."""

    def take(self: StateT, rows: Sequence[int]) -> StateT:
        """State of some signals of the batch, in the order of `rows`; a copy."""
        fields = {field.name: _take(getattr(self, field.name), rows) for field in dataclasses.fields(self)}
        return type(self)(**fields)


def _take(value: Any, rows: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value[list(rows)]
    if isinstance(value, State):
        return value.take(rows)
    if isinstance(value, list):
        return [_take(item, rows) for item in value]
    return value


class StreamingModule(nn.Module):
    """A module that draws its own weights from a generator."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the module's own weights so that activations keep about unit scale through a deep network."""

    def prepare(self) -> None:
        """Derive faster forms of the module's own weights, which must not change afterwards. Optional."""


class Layer(StreamingModule, ABC):
    """One stage of a network that runs whole signals and streams through the same code."""

    benefits_from_batching: ClassVar[bool] = False
    """`step_many` is faster than a `step` of each stream."""

    @property
    def accepts_epilogue(self) -> bool:
        """Tell whether `step_fused` applies an epilogue at next to no cost."""
        return False

    @property
    def accepts_prologue(self) -> bool:
        """Tell whether `step_fused` copies its input first, so that a pointwise layer before it costs nothing."""
        return False

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def init_state(self, setup: StreamSetup) -> State:
        """State before the first frame; empty for layers without memory."""
        return State()

    @abstractmethod
    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        """Process the next frames.

        Args:
            x: `(batch, frames, channels)`; `frames` may be 0.
            state: From `init_state` of this layer; updated in place.
            last: The signal ends with `x`: right padding is added, and all frames held back are returned.
        """

    def step_fused(self, prologue: Pointwise | None, x: Tensor, state: Any, last: bool, epilogue: Epilogue = IDENTITY) -> Tensor:
        """`step` of the prologue's output for `x`, then the epilogue; these may be fused into this layer's kernel.

        Only layers with `accepts_epilogue` are given one.
        """
        assert epilogue is IDENTITY
        return self.step(prologue.step(x, None, last) if prologue else x, state, last)

    def step_many(self, xs: Sequence[Tensor], states: Sequence[Any], last: bool) -> list[Tensor]:
        """`step` of several streams; the output of each is the same as by itself."""
        return [self.step(x, state, last) for x, state in zip(xs, states, strict=True)]

    def frames_out(self, frames: int, last: bool) -> int:
        """Number of frames that have come out once `frames` have gone in."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """Process whole signals `(batch, frames, channels)` at once, without noise."""
        setup = StreamSetup(x.shape[0], x.device, x.dtype)
        return self.step(x, self.init_state(setup), last=True)


class Pointwise(Layer):
    """A layer whose output frames each depend on the same input frame alone."""

    @abstractmethod
    def write_to(self, x: Tensor, out: Tensor) -> None:
        """Write the output for `x` to `out`, of the same shape, which may be part of the next layer's input buffer."""

    @property
    def as_epilogue(self) -> Epilogue | None:
        """This layer as an epilogue of the layer before it; `None` if it has no such form."""
        return None

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        out = torch.empty_like(x)
        self.write_to(x, out)
        return out

    def prepare(self) -> None:
        load_cpu_kernels()


def reset_parameters(network: nn.Module, seed: int) -> None:
    """Draw every module's weights from one seed, in the order of `network.modules()`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StreamingModule):
                module.reset_parameters(generator)


def prepare(network: nn.Module) -> None:
    """Prepare all modules for inference: their weights must keep their values and device afterwards."""
    dispatch.retain_malloc_arena()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StreamingModule):
                module.prepare()


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
        return dispatch.prefers_gemm(x.device)

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

    def step_many(self, xs: Sequence[Tensor], states: Sequence[SequentialState], last: bool) -> list[Tensor]:
        """Layer by layer only where layers benefit; between them, stream by stream, whose data stays in cache."""
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
