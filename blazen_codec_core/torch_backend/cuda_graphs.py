"""CUDA-graph capture and replay of session steps.

Launching the hundreds of small kernels of a step takes longer on a GPU than running them; a CUDA graph launches all at once.

A graph reads and writes the same memory at every replay. So once a step no longer changes the shapes of a stream's state, its
tensors become static: each step ends by writing to them, and inputs are copied to static tensors before it. The first steps and
the last one of a stream run without a graph.
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
"""From inputs and a state, updated in place, to outputs."""
CaptureFn = Callable[[Callable[[], None]], Callable[[], None]]
"""Captures a function, and returns one that replays it on the same tensors."""


def cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Capture a CUDA graph of a function, which is not executed meanwhile."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


CAPTURE_FNS: Mapping[str, CaptureFn] = {"cuda": cuda_graph}
"""Capture functions by device type."""


def capture_fn_for(device: torch.device) -> CaptureFn:
    """Choose the capture function of a device.

    Raises:
        DeviceUnavailable: The device has no graphs.
    """
    if capture := CAPTURE_FNS.get(device.type):
        return capture
    raise DeviceUnavailable(f"graphs are captured on {', '.join(CAPTURE_FNS)} only, not on {device}; load without graphs")


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


def _slots(owner: Any) -> Iterator[_StateSlot]:
    """Yield the slots of all values in a state and in its inner states, in order."""
    if isinstance(owner, list):
        slots = [_StateSlot(owner, index, counts=False) for index in range(len(owner))]
    else:
        slots = [_StateSlot(owner, field.name, COUNTS in field.metadata) for field in dataclasses.fields(owner)]
    for slot in slots:
        value = slot.get()
        if isinstance(value, State | list):
            yield from _slots(value)
        else:
            yield slot


def _signature(value: Any) -> Any:
    """Shape and dtype of a tensor, or the value itself: equal signatures can share a graph."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value


class StaticNoise:
    """Noise in static tensors, which are filled before each replay."""

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
        """Begin a captured step: noise is drawn into static tensors from now on."""
        self._drawn, self._number = self._drawn or [], 0

    def fill(self, replays: int) -> None:
        """Fill the static tensors for the step after `replays` others."""
        for layer, position, values in self._drawn or []:
            steps = replays * sum(values.shape[1] for other, _, values in self._drawn or [] if other == layer)
            values.copy_(self._noise(layer, position + steps, values.shape[1]))

    def end(self) -> None:
        self._drawn = None


class GraphedStep:
    """A step that is captured once inputs and state have the shapes of the step before, and replayed while they keep them.

    Args:
        noise: Source of the step's noise, if it has any.
    """

    def __init__(self, step: Step, capture: CaptureFn, noise: StaticNoise | None = None) -> None:
        self._step, self._capture, self._noise = step, capture, noise
        self._previous: Any = None
        self._graph: Callable[[], None] | None = None
        self._replays = 0

    def __call__(self, inputs: Sequence[Tensor], state: State) -> list[Tensor]:
        slots = list(_slots(state))
        signature = [*map(_signature, inputs), *(_signature(slot.get()) for slot in slots if not slot.counts)]
        is_settled, self._previous = signature == self._previous, signature
        if not is_settled:
            self.reset()
            return self._step(inputs, state)
        if self._graph is None:
            self._capture_step(inputs, state, slots)
        return self._replay(inputs)

    def reset(self) -> None:
        """Drop the graph: the next step runs without one."""
        self._graph = None
        if self._noise:
            self._noise.end()

    def _capture_step(self, inputs: Sequence[Tensor], state: State, slots: Sequence[_StateSlot]) -> None:
        self._inputs = [x.clone() for x in inputs]
        static_tensors = [(slot, value) for slot in slots if isinstance(value := slot.get(), Tensor)]
        counts = [slot for slot in slots if slot.counts]

        def run() -> None:
            if self._noise:
                self._noise.begin()
            previous = [slot.get() for slot in counts]
            self._outputs = self._step(self._inputs, state)
            for slot, tensor in static_tensors:
                if slot.get() is not tensor:
                    tensor.copy_(slot.get())
                    slot.set(tensor)
            self._counts = [(slot, slot.get() - value) for slot, value in zip(counts, previous, strict=True)]
            for slot, value in zip(counts, previous, strict=True):
                slot.set(value)

        saved = [tensor.clone() for _, tensor in static_tensors]
        self._graph, self._replays = self._capture(run), 0
        for (_, tensor), value in zip(static_tensors, saved, strict=True):
            tensor.copy_(value)

    def _replay(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert self._graph is not None
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        if self._noise:
            self._noise.fill(self._replays)
        previous = [slot.get() for slot, _ in self._counts]
        self._graph()
        for (slot, increment), value in zip(self._counts, previous, strict=True):
            slot.set(value + increment)
        self._replays += 1
        return self._outputs


class GraphedNetwork:
    """A network for one session, whose steps, except the last, are graphs. Other attributes are the network's own."""

    def __init__(self, network: CodecNetwork, capture: CaptureFn) -> None:
        self._network, self._capture = network, capture
        self._encode = GraphedStep(lambda x, state: network.encode_step(x[0], state, False), capture)
        self._decode = GraphedStep(self._decode_one_step, capture)

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
            self._decode = GraphedStep(self._decode_one_step, self._capture, noise)
        return self._network.decoder_state(setup)

    def decode_step(self, indices: Sequence[Tensor], state: State, last: bool) -> Tensor:
        if last:
            self._decode.reset()
            return self._network.decode_step(indices, state, last)
        return self._decode(indices, state)[0]

    def _decode_one_step(self, indices: Sequence[Tensor], state: State) -> list[Tensor]:
        return [self._network.decode_step(indices, state, False)]
