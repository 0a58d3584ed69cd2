"""The layer protocol: weights in the module, stream state outside it.

Signals are `(batch, time, channels)`, because there a convolution is a sum of matrix products on shifted views.
A stream begins with `init_state`, goes through any number of `step` calls and ends with one whose `last` is true.
A step may return fewer frames than it was given, or none; over the whole stream the frames returned are the
same for any cut of the input. Weights are never written, so one module serves any number of streams at once.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ..kernels.allocator import retain_malloc_arena, return_free_memory
from ..pipeline import Join, Split, Step
from .deferral import current_deferral

NoiseSource = Callable[[int, Any, int], Tensor]
"""`(layer, position, count)` to `(batch or 1, count, 1)` standard normal noise; the position is as in a state, see `COUNTS`."""

StateT = TypeVar("StateT", bound="State")


COUNTS = "counts"
"""Metadata key of a state's field that counts: it grows by the same amount at every step until the signal ends.

It is a number, or an array `(batch,)` for signals that began at different times.
"""


@dataclasses.dataclass(frozen=True)
class StreamSetup:
    """Settings that the state of a new stream depends on.

    Attributes:
        batch: Number of signals.
        device: Device of the state and the signal.
        dtype: Floating dtype of the signal.
        noise: Source of noise blocks; `None` switches them off.
        dynamic_length: The signal may have any length; else its length recurs (see `kernels.bucketing`).
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

    @classmethod
    def join(cls: type[StateT], states: Sequence[StateT]) -> StateT:
        """State of the signals of several batches, whose signatures are equal. Counts that differ become arrays `(batch,)`."""
        return states[0] if len(states) == 1 else _join_states(states, [state.rows for state in states])

    @property
    def rows(self) -> int:
        """Number of signals, by the first tensor; 1 without tensors."""
        return next((value.shape[0] for value in self.tensors()), 1)

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors, those of inner states included."""
        return _tensors(self)

    def signature(self) -> tuple[Any, ...]:
        """Shapes without the batch, dtypes, and plain values except counts: states of equal signatures can be joined."""
        kind: Any = type(self)
        return tuple([_signature(getattr(self, name)) for name in _plain_fields(kind)])


@functools.cache
def _plain_fields(kind: Any) -> tuple[str, ...]:
    """Names of the fields of a state that are no counts."""
    return tuple(field.name for field in dataclasses.fields(kind) if COUNTS not in field.metadata)


def _signature(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape[1:], value.dtype
    if isinstance(value, State):
        return value.signature()
    return tuple(map(_signature, value)) if isinstance(value, list) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors of a state."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, State | list):
        parts = value if isinstance(value, list) else [getattr(value, field.name) for field in dataclasses.fields(value)]
        for part in parts:
            yield from _tensors(part)


def _join_states(states: Sequence[StateT], sizes: Sequence[int]) -> StateT:
    joined = {
        field.name: _join([getattr(state, field.name) for state in states], sizes, COUNTS in field.metadata)
        for field in dataclasses.fields(states[0])
    }
    return type(states[0])(**joined)


def _join(values: Sequence[Any], sizes: Sequence[int], counts: bool = False) -> Any:
    first = values[0]
    if counts:
        if all(isinstance(value, int) and value == first for value in values):
            return first
        return np.concatenate([np.broadcast_to(value, (size,)) for value, size in zip(values, sizes, strict=True)])
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, State):
        return _join_states(values, sizes)
    if isinstance(first, list):
        return [_join(items, sizes) for items in zip(*values, strict=True)]
    return first


def _take(value: Any, rows: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value[list(rows)]
    if isinstance(value, np.ndarray):  # counts
        return int(value[rows[0]]) if len(rows) == 1 else value[list(rows)]
    if isinstance(value, State):
        return value.take(rows)
    if isinstance(value, list):
        return [_take(item, rows) for item in value]
    return value


class StreamingModule(nn.Module):
    """A module that draws its own weights from a generator."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and (deferral := current_deferral()):
            deferral.defer(value)
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):  # PyTorch looks submodules up in Python, some hundred times a step
            self.__dict__[name] = value

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if param is not None and (deferral := current_deferral()):
            param = deferral.replacement(param)
        super().register_parameter(name, param)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the module's own weights so that activations keep about unit scale through a deep network."""

    def prepare(self) -> None:
        """Derive faster forms of the module's own weights, which must not change afterwards. Optional."""


class Layer(StreamingModule, ABC):
    """One stage of a network that runs whole signals and streams through the same code."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    @property
    def benefits_from_batching(self) -> bool:
        """Tell whether `step_many` is faster than a `step` of each stream."""
        return False

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

    def steps(self, state: Any) -> list[Step | Split | Join]:
        """`step` as functions that run in turn on each tile; several tiles may be in different ones at the same time."""
        return [partial(self.step, state=state)]

    def step_many(self, xs: Sequence[Tensor], states: Sequence[Any], lasts: Sequence[bool]) -> list[Tensor]:
        """`step` of several streams; the output of each is the same as by itself."""
        return [self.step(x, state, last) for x, state, last in zip(xs, states, lasts, strict=True)]

    def frames_out(self, frames: int, last: bool) -> int:
        """Number of frames that have come out once `frames` have gone in."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """Process whole signals `(batch, frames, channels)` at once, without noise."""
        setup = StreamSetup(x.shape[0], x.device, x.dtype)
        return self.step(x, self.init_state(setup), last=True)


def reset_parameters(network: nn.Module, seed: int) -> None:
    """Draw every module's weights from one seed, in the order of `network.modules()`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StreamingModule):
                module.reset_parameters(generator)


def check_no_gradients(x: Tensor) -> None:
    """Raise an error if gradients are recorded for the input of a prepared network, whose kernels have none.

    Raises:
        InvalidInput: They are.
    """
    if x.requires_grad and torch.is_grad_enabled():
        raise InvalidInput(
            "the input requires gradients, which a network that is prepared for inference cannot give; use provider.module, "
            "or call it under torch.no_grad()"
        )


def prepare(network: nn.Module) -> None:
    """Prepare all modules for inference, inner ones first: their weights must keep their values and device afterwards.

    Parameters become inference tensors, so that PyTorch refuses writes to them outside of inference mode.
    """
    retain_malloc_arena()
    if isinstance(network, StreamingModule):  # others have no kernels that a write would not reach
        _seal_parameters(network)
    with torch.no_grad():
        prepare_modules(network)
    return_free_memory()


def prepare_modules(network: nn.Module) -> None:
    """Let each module prepare kernels for its weights, inner ones first."""
    for module in reversed(list(network.modules())):
        if isinstance(module, StreamingModule):
            module.prepare()


@torch.inference_mode()
def _seal_parameters(network: nn.Module) -> None:
    """Replace parameters by copies that are inference tensors. Shared parameters stay shared."""
    sealed: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not parameter.is_meta:
                copy = sealed.get(id(parameter)) or nn.Parameter(parameter.detach().clone(), requires_grad=False)
                sealed[id(parameter)] = copy
                setattr(module, name, copy)  # a recurrent layer of PyTorch lists its weights
