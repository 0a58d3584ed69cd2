"""A session's steps, recorded once and then played. On a GPU, starting a step's hundreds of small kernels one by one takes longer
than running them; a CUDA graph starts them all at once.

What is recorded reads and writes the same memory every time. So the tensors of a stream's state, once a step no longer changes
their shapes, become fixed places that each step ends by writing to; what the next step is given is copied to fixed places before
it. A stream begins and ends with steps that are run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import DeviceUnavailable
from ..nn.codec_network import CodecNetwork, EncoderState
from ..nn.layers.base import COUNTS, NoiseSource, State, StreamSetup

Step = Callable[[Sequence[Tensor], Any], list[Tensor]]
"""Inputs and a state, which it changes, to outputs."""
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Goes through some work and returns what does it again, on the same tensors."""


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """The recorder for CUDA devices; what it goes through is not computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


RECORDERS: Mapping[str, Recorder] = {"cuda": cuda_graph}
"""By device type."""


def capture_fn_for(device: torch.device) -> Recorder:
    """Choose the function that records steps on a device.

    Raises:
        DeviceUnavailable: Nothing does.
    """
    if recorder := RECORDERS.get(device.type):
        return recorder
    raise DeviceUnavailable(f"steps are recorded on {', '.join(RECORDERS)} only, not on {device}: leave out graphs")


@dataclass(frozen=True)
class _StateSlot:
    """Slot of a value in a state: its owner, and its name or index there."""

    owner: Any
    name: Any
    counts: bool

    def get(self) -> Any:
        return self.owner[self.name] if isinstance(self.owner, list) else getattr(self.owner, self.name)

    def set(self, value: Any) -> None:
        if isinstance(self.owner, list):
            self.owner[self.name] = value
        else:
            setattr(self.owner, self.name, value)


def _places(owner: Any) -> Iterator[_StateSlot]:
    """Yield the slots of all values in a state and in its inner states, in order."""
    if isinstance(owner, list):
        named = [_StateSlot(owner, number, counts=False) for number in range(len(owner))]
    else:
        named = [_StateSlot(owner, field.name, COUNTS in field.metadata) for field in dataclasses.fields(owner)]
    for place in named:
        value = place.get()
        if isinstance(value, State | list):
            yield from _places(value)
        else:
            yield place


def _looks(value: Any) -> Any:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value


class StaticNoise:
    """Noise in fixed places, which are filled before a step is played."""

    def __init__(self, noise: NoiseSource) -> None:
        self._noise = noise
        self._drawn: list[tuple[int, int, Tensor]] | None = None
        self._number = 0

    def __call__(self, layer: int, position: int, count: int) -> Tensor:
        if self._drawn is None:
            return self._noise(layer, position, count)
        if self._number == len(self._drawn):
            self._drawn.append((layer, position, torch.empty_like(self._noise(layer, 0, count))))
        self._number += 1
        return self._drawn[self._number - 1][2]

    def begin(self) -> None:
        """From now on, what is drawn is of the recorded step."""
        self._drawn, self._number = self._drawn or [], 0

    def fill(self, plays: int) -> None:
        """For the step after so many others."""
        for layer, position, values in self._drawn or []:
            steps = plays * sum(values.shape[1] for other, _, values in self._drawn or [] if other == layer)
            values.copy_(self._noise(layer, position + steps, values.shape[1]))

    def end(self) -> None:
        self._drawn = None


class GraphedStep:
    """A step that is recorded where it finds inputs and a state of the same shapes as the one before, and then played as long as
    it does.

    Args:
        noise: Where the step draws noise from, if it does.
    """

    def __init__(self, step: Step, recorder: Recorder, noise: StaticNoise | None = None) -> None:
        self._step, self._recorder, self._noise = step, recorder, noise
        self._before: Any = None
        self._play: Callable[[], None] | None = None
        self._plays = 0

    def __call__(self, inputs: Sequence[Tensor], state: State) -> list[Tensor]:
        places = list(_places(state))
        looks = [*map(_looks, inputs), *(_looks(place.get()) for place in places if not place.counts)]
        settled, self._before = looks == self._before, looks
        if not settled:
            self.stop()
            return self._step(inputs, state)
        if self._play is None:
            self._record(inputs, state, places)
        return self._played(inputs)

    def stop(self) -> None:
        """Lets go of what is recorded: the next step is run."""
        self._play = None
        if self._noise:
            self._noise.end()

    def _record(self, inputs: Sequence[Tensor], state: State, places: Sequence[_StateSlot]) -> None:
        self._inputs = [each.clone() for each in inputs]
        fixed = [(place, value) for place in places if isinstance(value := place.get(), Tensor)]
        counts = [place for place in places if place.counts]

        def work() -> None:
            if self._noise:
                self._noise.begin()
            before = [place.get() for place in counts]
            self._made = self._step(self._inputs, state)
            for place, tensor in fixed:
                if place.get() is not tensor:
                    tensor.copy_(place.get())
                    place.set(tensor)
            self._counts = [(place, place.get() - value) for place, value in zip(counts, before, strict=True)]
            for place, value in zip(counts, before, strict=True):
                place.set(value)

        held = [tensor.clone() for _, tensor in fixed]
        self._play, self._plays = self._recorder(work), 0
        for (_, tensor), value in zip(fixed, held, strict=True):
            tensor.copy_(value)

    def _played(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert self._play is not None
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        if self._noise:
            self._noise.fill(self._plays)
        before = [place.get() for place, _ in self._counts]
        self._play()
        for (place, more), value in zip(self._counts, before, strict=True):
            place.set(value + more)
        self._plays += 1
        return self._made


class GraphedNetwork:
    """A network as one session has it: its steps are recorded, but for the last one. All else is the network's own."""

    def __init__(self, network: CodecNetwork, recorder: Recorder) -> None:
        self._network, self._recorder = network, recorder
        self._encode = GraphedStep(lambda x, state: network.encode_step(x[0], state, False), recorder)
        self._decode = GraphedStep(self._decoded, recorder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode_step(self, x: Tensor, state: State, last: bool) -> list[Tensor]:
        if last:
            return self._network.encode_step(x, cast(EncoderState, state), last)
        return self._encode([x], state)

    def decoder_state(self, setup: StreamSetup) -> State:
        if setup.noise:
            noise = StaticNoise(setup.noise)
            setup = dataclasses.replace(setup, noise=noise)
            self._decode = GraphedStep(self._decoded, self._recorder, noise)
        return self._network.decoder_state(setup)

    def decode_step(self, indices: Sequence[Tensor], state: State, last: bool) -> Tensor:
        if last:
            self._decode.stop()
            return self._network.decode_step(indices, state, last)
        return self._decode(indices, state)[0]

    def _decoded(self, indices: Sequence[Tensor], state: State) -> list[Tensor]:
        return [self._network.decode_step(indices, state, False)]
