"""CUDA-graph capture and replay of session steps.

Launching the hundreds of small kernels of a step takes longer on a GPU than running them; a CUDA graph launches all at once.

A graph reads and writes the same memory at every replay. So once a step no longer changes the shapes of a stream's state, its
tensors become static: each step ends by writing to them, and inputs are copied to static tensors before it. The first steps and
the last one of a stream run without a graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
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
class StateSlot:
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


def state_slots(owner: Any) -> Iterator[StateSlot]:
    """Yield the slots of all values in a state and in its inner states, in order."""
    if isinstance(owner, list):
        slots = [StateSlot(owner, index, counts=False) for index in range(len(owner))]
    else:
        slots = [StateSlot(owner, field.name, COUNTS in field.metadata) for field in dataclasses.fields(owner)]
    for slot in slots:
        value = slot.get()
        if isinstance(value, State | list):
            yield from state_slots(value)
        else:
            yield slot


def _signature(value: Any) -> Any:
    """Shape and dtype of a tensor, or the value itself: equal signatures can share a graph."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class SymbolicCount:
    """A count of a state while a step is captured.

    Attributes:
        number: Number of the count in the state.
        offset: Difference to its value at the beginning of the step.
    """

    number: int
    offset: int = 0

    def __add__(self, frames: int) -> SymbolicCount:
        return SymbolicCount(self.number, self.offset + frames)


Drawn = list[tuple[int, SymbolicCount, Tensor]]
"""Layer, position and static tensor of each block of noise in a captured step."""


class StaticNoise:
    """Source of noise that, while a step is captured, gives static tensors, which are filled before each replay."""

    def __init__(self, noise: NoiseSource) -> None:
        self._noise = noise
        self._drawn: Drawn | None = None
        self._number = self._rows = 0

    def __call__(self, layer: int, position: Any, count: int) -> Tensor:
        if self._drawn is None:
            return self._noise(layer, position, count)
        if self._number == len(self._drawn):
            block = self._noise(layer, 0, count)
            self._drawn.append((layer, position, block.new_zeros(self._rows, count, 1)))
        self._number += 1
        return self._drawn[self._number - 1][2]

    @contextmanager
    def captured(self, drawn: Drawn, rows: int) -> Iterator[None]:
        """Context of a step that is captured, which draws these blocks, with a number of rows."""
        self._drawn, self._number, self._rows = drawn, 0, rows
        try:
            yield
        finally:
            self._drawn = None

    def fill(self, drawn: Drawn, counts: Sequence[Any]) -> None:
        """Fill static tensors for a step.

        Args:
            counts: Value of each count of the state, a number or an array with one for each row.
        """
        for layer, position, values in drawn:
            values.copy_(self._noise(layer, counts[position.number] + position.offset, values.shape[1]))


class StepGraph:
    """Graph of one step on static tensors.

    Args:
        step: From static inputs to static outputs. It updates static tensors, and the counts of a state.
        counts: Slots of these counts.
        rows: Number of rows of noise: 1 if the counts of all signals are equal.
        noise: Source of the step's noise, if it has any.

    Attributes:
        outputs: Static outputs.
        increments: By how much a step increases each count.
    """

    def __init__(
        self,
        step: Callable[[Sequence[Tensor]], list[Tensor]],
        inputs: Sequence[Tensor],
        counts: Sequence[StateSlot],
        rows: int,
        capture: CaptureFn,
        noise: StaticNoise | None,
    ) -> None:
        self._inputs, self._noise = [x.clone() for x in inputs], noise
        self._drawn: Drawn = []
        self.outputs: list[Tensor] = []
        self.increments: list[int] = []

        def run() -> None:
            previous = [slot.get() for slot in counts]
            for number, slot in enumerate(counts):
                slot.set(SymbolicCount(number))
            with noise.captured(self._drawn, rows) if noise else nullcontext():
                self.outputs = step(self._inputs)
            self.increments = [slot.get().offset for slot in counts]
            for slot, value in zip(counts, previous, strict=True):
                slot.set(value)

        self._graph = capture(run)

    def replay(self, inputs: Sequence[Tensor], counts: Sequence[Any]) -> list[Tensor]:
        """Run the step; return its static outputs, which the next replay overwrites.

        Args:
            counts: Value of each count before the step; see `StaticNoise.fill`.
        """
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        if self._noise:
            self._noise.fill(self._drawn, counts)
        self._graph()
        return self.outputs

    @property
    def nbytes(self) -> int:
        """Bytes of the static inputs, outputs and noise."""
        return sum(tensor.nbytes for tensor in [*self._inputs, *self.outputs, *(values for _, _, values in self._drawn)])


class GraphedStep:
    """A step that is captured once inputs and state have the shapes of the step before, and replayed while they keep them.

    Args:
        noise: Source of the step's noise, if it has any.
    """

    def __init__(self, step: Step, capture: CaptureFn, noise: StaticNoise | None = None) -> None:
        self._step, self._capture, self._noise = step, capture, noise
        self._previous: Any = None
        self._graph: StepGraph | None = None

    def __call__(self, inputs: Sequence[Tensor], state: State) -> list[Tensor]:
        slots = list(state_slots(state))
        signature = [*map(_signature, inputs), *(_signature(slot.get()) for slot in slots if not slot.counts)]
        is_settled, self._previous = signature == self._previous, signature
        if not is_settled:
            self.reset()
            return self._step(inputs, state)
        if self._graph is None:
            self._graph = self._captured(inputs, state, slots)
        counts = [slot for slot in slots if slot.counts]
        values = [slot.get() for slot in counts]
        outputs = self._graph.replay(inputs, values)
        for slot, value, increment in zip(counts, values, self._graph.increments, strict=True):
            slot.set(value + increment)
        return outputs

    def reset(self) -> None:
        """Drop the graph: the next step runs without one."""
        self._graph = None

    def _captured(self, inputs: Sequence[Tensor], state: State, slots: Sequence[StateSlot]) -> StepGraph:
        static_tensors = [(slot, value) for slot in slots if isinstance(value := slot.get(), Tensor)]

        def step(static_inputs: Sequence[Tensor]) -> list[Tensor]:
            outputs = self._step(static_inputs, state)
            for slot, tensor in static_tensors:
                if slot.get() is not tensor:
                    tensor.copy_(slot.get())
                    slot.set(tensor)
            return outputs

        saved = [tensor.clone() for _, tensor in static_tensors]
        graph = StepGraph(step, inputs, [slot for slot in slots if slot.counts], 1, self._capture, self._noise)
        for (_, tensor), value in zip(static_tensors, saved, strict=True):
            tensor.copy_(value)
        return graph


class GraphedNetwork:
    """A network for one session, whose steps, except the last, are graphs. Other attributes are the network's own."""

    def __init__(self, network: CodecNetwork, capture: CaptureFn) -> None:
        self._network, self._capture = network, capture
        self._encode = GraphedStep(lambda x, state: network.encode_step(x[0], state, False), capture)
        self._decode = GraphedStep(self._decode_one_step, capture)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def reset(self) -> None:
        """Drop the graphs, and their memory."""
        self._encode.reset()
        self._decode.reset()

    def encode_step(self, x: Tensor, state: State, last: bool) -> list[Tensor]:
        if last:
            self._encode.reset()
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
