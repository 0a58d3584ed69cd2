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
from ..kernels.backends import load_loops
from ..kernels.epilogue import NOTHING, Epilogue

NoiseSource = Callable[[int, int, int], Tensor]
"""`(layer, position, count)` to `(batch or 1, count, 1)` standard normal noise."""

StateT = TypeVar("StateT", bound="State")


COUNTS = "counts"
"""In the metadata of a state's field: it counts from step to step, and how is the same for each until the signal ends."""


@dataclasses.dataclass(frozen=True)
class StreamSetup:
    """Settings that the state of a new stream depends on.

    Attributes:
        batch: Signals that run side by side.
        device: Where the state lives.
        dtype: The floating type of the signal.
        noise: Where noise blocks draw from; `None` switches them off.
        any_length: Whether it may end anywhere; else it is of a length that comes again and again (see `dispatch.run_bucketed`).
        ends: How many frames each signal has in all, where some have fewer than others: what comes after them is not there.
    """

    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    noise: NoiseSource | None = None
    any_length: bool = True
    ends: tuple[int, ...] | None = None

    def after(self, layer: Layer) -> StreamSetup:
        """The setup for what follows a layer."""
        if self.ends is None:
            return self
        return dataclasses.replace(self, ends=tuple(layer.frames_out(frames, True) for frames in self.ends))

    def zeros(self, frames: int, channels: int) -> Tensor:
        return torch.zeros(self.batch, frames, channels, device=self.device, dtype=self.dtype)


@dataclasses.dataclass
class State:
    """Values that a layer keeps between steps: tensors with the batch first, other states, and plain values."""

    def take(self: StateT, rows: Sequence[int]) -> StateT:
        """The state of some signals of the batch, in the order of `rows`; this one stays as it is."""
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
        """Draws the module's own weights; the activations keep about unit scale through a deep network."""

    def prepare(self) -> None:
        """Derives from the module's own weights what makes it faster. Modules work without it too."""


class Layer(StreamingModule, ABC):
    """One stage of a network that runs whole signals and streams through the same code."""

    benefits_from_batching: ClassVar[bool] = False
    """Tell whether `step_many` is faster than a step of each, so that streams should come to it together."""

    @property
    def accepts_epilogue(self) -> bool:
        """Tell whether in `step_fused` what comes after costs next to nothing."""
        return False

    @property
    def accepts_prologue(self) -> bool:
        """Tell whether it writes its input elsewhere first, where a pointwise layer before it costs nothing."""
        return False

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def init_state(self, setup: StreamSetup) -> State:
        """The state before the first frame. Layers without memory have none to add."""
        return State()

    @abstractmethod
    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        """Feeds the next frames.

        Args:
            x: `(batch, frames, channels)`; `frames` may be 0.
            state: From `init_state` of this layer; changed in place.
            last: The signal ends with `x`: right padding is added and everything held back is returned.
        """

    def step_fused(self, before: Pointwise | None, x: Tensor, state: Any, last: bool, after: Epilogue = NOTHING) -> Tensor:
        """`step` of what another layer makes of `x`, and then what comes after.

        Layers that write their input elsewhere first have it made there. Only those that fuse are given anything to do after.
        """
        assert after is NOTHING
        return self.step(before.step(x, None, last) if before else x, state, last)

    def step_many(self, xs: Sequence[Tensor], states: Sequence[Any], last: bool) -> list[Tensor]:
        """`step` of several streams, each as if it were alone."""
        return [self.step(x, state, last) for x, state in zip(xs, states, strict=True)]

    def frames_out(self, frames: int, last: bool) -> int:
        """Number of frames that have come out once `frames` have gone in."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal at once, without noise: `(batch, frames, channels)` in and out."""
        setup = StreamSetup(x.shape[0], x.device, x.dtype)
        return self.step(x, self.init_state(setup), last=True)


class Pointwise(Layer):
    """A layer whose every output frame depends on the same input frame alone."""

    @abstractmethod
    def into(self, x: Tensor, out: Tensor) -> None:
        """Writes the output for `x` to `out`, of the same shape, which may be a part of what the next layer works on."""

    @property
    def after(self) -> Epilogue | None:
        """The same as what comes after another layer, if that can be said."""
        return None

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        out = torch.empty_like(x)
        self.into(x, out)
        return out

    def prepare(self) -> None:
        load_loops()


def reset_parameters(network: nn.Module, seed: int) -> None:
    """Draws every module's weights from one seed, in the order of `network.modules()`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StreamingModule):
                module.reset_parameters(generator)


def prepare(network: nn.Module) -> None:
    """Makes ready for many runs: the weights will stay as they are, and where they are."""
    dispatch.retain_malloc_arena()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StreamingModule):
                module.prepare()


@dataclasses.dataclass
class ChainState(State):
    states: list[State]
    ragged: bool
    """Tell whether some signals end before others."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Layers of a chain that run on `frames` frames of their input at a time, so that their work stays in cache.

    The layers before and after them may take any number of frames.
    """

    layers: slice
    frames: int


class Sequential(Layer):
    """Layers one after the other, some of them in tiles."""

    def __init__(self, layers: Iterable[Layer], tiled: Tiling | None = None) -> None:
        super().__init__()
        self._order = tuple(layers)
        self.layers = nn.ModuleList(self._order)  # gives them their names
        self.tiled = tiled

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._order)

    @property
    def accepts_epilogue(self) -> bool:
        return self.tiled is None and self._order[-1].accepts_epilogue

    @property
    def accepts_prologue(self) -> bool:
        return self._order[0].accepts_prologue

    def _in_tiles(self, x: Tensor, state: ChainState) -> bool:
        """On a GPU there is no cache for a tile to stay in."""
        return (
            self.tiled is not None and not state.ragged and not torch.is_grad_enabled() and dispatch.products_are_faster(x.device)
        )

    def init_state(self, setup: StreamSetup) -> ChainState:
        states, ragged = [], setup.ends is not None
        for layer in self:
            states.append(layer.init_state(setup))
            setup = setup.after(layer)
        return ChainState(states, ragged)

    def step(self, x: Tensor, state: ChainState, last: bool) -> Tensor:
        if self.tiled is None or not self._in_tiles(x, state):
            return self._run_slice(slice(None), x, state, last)
        start, stop, _ = self.tiled.layers.indices(len(self._order))
        x = self._run_slice(slice(start), x, state, last)
        tiles = torch.split(x, self.tiled.frames, dim=1)
        parts = [
            self._run_slice(self.tiled.layers, tile, state, last and number == len(tiles)) for number, tile in enumerate(tiles, 1)
        ]
        return self._run_slice(slice(stop, None), torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], state, last)

    def step_many(self, xs: Sequence[Tensor], states: Sequence[ChainState], last: bool) -> list[Tensor]:
        """Layer by layer only where that gains; in between, each stream by itself stays in cache."""
        if self.tiled or len(xs) == 1:
            return super().step_many(xs, states, last)
        made = list(xs)
        for together, run in groupby(enumerate(self), lambda numbered: numbered[1].benefits_from_batching):
            numbers, layers = zip(*run, strict=True)
            if together:
                for number, layer in zip(numbers, layers, strict=True):
                    made = layer.step_many(made, [state.states[number] for state in states], last)
            else:
                part = slice(numbers[0], numbers[-1] + 1)
                made = _pack_contiguous(
                    (self._run_slice(part, x, state, last) for x, state in zip(made, states, strict=True)), len(made)
                )
        return made

    def step_fused(self, before: Pointwise | None, x: Tensor, state: ChainState, last: bool, after: Epilogue = NOTHING) -> Tensor:
        if self._in_tiles(x, state):
            return super().step_fused(before, x, state, last, after)
        return self._run_slice(slice(None), x, state, last, before, after)

    def _run_slice(
        self, part: slice, x: Tensor, state: ChainState, last: bool, before: Pointwise | None = None, after: Epilogue = NOTHING
    ) -> Tensor:
        """Some of the layers. Pointwise ones are left to those around them, where that saves passes over memory."""
        layers, states, place = self._order[part], state.states[part], 0
        fusing = not torch.is_grad_enabled()
        while place < len(layers):
            layer, own = layers[place], states[place]
            place += 1
            accepts_epilogue = fusing and layer.accepts_epilogue
            if before or accepts_epilogue:
                then = after if place == len(layers) else NOTHING
                if accepts_epilogue and then is NOTHING and (made := _epilogue_from(layers[place : place + 2])):
                    place, then = place + 1, made
                x, before = layer.step_fused(before, x, own, last, then), None
            elif fusing and isinstance(layer, Pointwise):
                before = layer
            else:
                x = layer.step(x, own, last)
        return before.step(x, None, last) if before else x

    def frames_out(self, frames: int, last: bool) -> int:
        for layer in self:
            frames = layer.frames_out(frames, last)
        return frames


def _epilogue_from(following: Sequence[Layer]) -> Epilogue | None:
    """Epilogue that the next layer can be; `None` if it can be none, or the layer after it takes it as a prologue."""
    if not following or not isinstance(following[0], Pointwise) or any(layer.accepts_prologue for layer in following[1:]):
        return None
    return following[0].after


def _pack_contiguous(signals: Iterator[Tensor], count: int) -> list[Tensor]:
    """So many signals, those of like shape in one block of memory: small ones, left between what the making of large ones
    allocates and frees, would break the heap up.
    """
    block: Tensor | None = None
    made: list[Tensor] = []
    for number, signal in enumerate(signals):
        if block is None:
            block = signal.new_empty(count, *signal.shape)
        own = block[number]
        made.append(own.copy_(signal) if signal.shape == own.shape else signal)
    return made


@dataclasses.dataclass
class ResidualState(State):
    branch: State
    shortcut: State
    skip: Tensor


class Residual(Layer):
    """`shortcut(x) + branch(x)`, holding the shortcut back until the branch has caught up.

    Args:
        channels: Out.
        branch: Keeps the length of its input.
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
            return self._add(y, self._past(x, state, last), state)
        past, held = self._past(x, state, last), state.skip.shape[1]
        y = branch.step_fused(None, x, state.branch, last, Epilogue(added=past, held=state.skip))
        left = y.shape[1] - held
        state.skip = past[:, left:].clone() if left >= 0 else torch.cat([state.skip[:, left:], past], dim=1)
        return y

    def _past(self, x: Tensor, state: ResidualState, last: bool) -> Tensor:
        shortcut = self.shortcut
        return shortcut.step(x, state.shortcut, last) if shortcut else x

    def _add(self, y: Tensor, x: Tensor, state: ResidualState) -> Tensor:
        """`y` and as many frames of what was held back and then `x`, without a copy of them."""
        frames, held = y.shape[1], state.skip.shape[1]
        if torch.is_grad_enabled() or frames < held:
            both = torch.cat([state.skip, x], dim=1)
            state.skip = both[:, frames:].clone()
            return y + both[:, :frames]
        y[:, :held].add_(state.skip)
        y[:, held:].add_(x[:, : frames - held])
        state.skip = x[:, frames - held :].clone()
        return y

    def frames_out(self, frames: int, last: bool) -> int:
        return self.branch.frames_out(frames, last)
