"""State of many settled streams in static tensors, stepped by CUDA graphs that gather and scatter it by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...nn.layers.base import State
from ..cuda_graphs import CaptureFn, StaticNoise, Step, StepGraph, state_slots


class Arena:
    """States of streams whose shapes no longer change, each in a slot.

    There is a graph for each bucket of 1, 2, 4, … rows. It gathers the states of the slots that an index names, runs the step,
    and scatters the new states. Rows beyond the streams of a step are those of a spare slot.

    Args:
        step: Step of the network; the state has a row for each stream.
        capture: Captures a graph.
        noise: Source of the step's noise, if it has any.
        state: Any settled state.
        slots: Most streams.
    """

    def __init__(self, step: Step, capture: CaptureFn, noise: StaticNoise | None, state: State, slots: int) -> None:
        self._step, self._capture, self._noise = step, capture, noise
        self._state, self._spare = state.take([0]), slots
        values = list(state_slots(self._state))
        self._tensors = [
            (slot, value.new_zeros(slots + 1, *value.shape[1:])) for slot in values if isinstance(value := slot.get(), Tensor)
        ]
        self._count_slots = [slot for slot in values if slot.counts]
        self._counts = np.zeros((len(self._count_slots), slots + 1), np.int64)
        self._free = list(range(slots))[::-1]
        self._graphs: dict[int, tuple[Tensor, StepGraph]] = {}

    @property
    def bytes_per_bucket(self) -> Mapping[int, int]:
        """Bytes of the static tensors of each captured bucket, by its rows, with the states that it gathers."""
        row = sum(tensor[0].nbytes for _, tensor in self._tensors)
        graphs = self._graphs.copy()  # a step in another thread may add one meanwhile
        return {rows: graph.nbytes + rows * row for rows, (_, graph) in graphs.items()}

    def put(self, state: State) -> list[int]:
        """Store the rows of a state in free slots, which they overwrite; return these."""
        slots = [self._free.pop() for _ in range(state.rows)]
        index = self._index(slots)
        values = list(state_slots(state))
        stored = [value for slot in values if isinstance(value := slot.get(), Tensor)]
        for (_, tensor), value in zip(self._tensors, stored, strict=True):
            tensor.index_copy_(0, index, value)
        for row, slot in enumerate(slot for slot in values if slot.counts):
            self._counts[row, slots] = slot.get()
        return slots

    def take(self, slots: Sequence[int]) -> State:
        """State of the streams in some slots, a copy; the slots are free afterwards."""
        index = self._index(slots)
        for slot, tensor in self._tensors:
            slot.set(tensor.index_select(0, index))
        for row, slot in enumerate(self._count_slots):
            slot.set(self._counts[row, list(slots)])
        self.free(slots)
        return self._state.take(range(len(slots)))

    def free(self, slots: Sequence[int]) -> None:
        """Free slots."""
        self._free += slots

    def step(self, slots: Sequence[int], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run a step of the streams in some slots; return outputs with a row for each of them."""
        rows = 1 << (len(slots) - 1).bit_length()
        padded = [*slots, *[self._spare] * (rows - len(slots))]
        inputs = [torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])]) if len(x) < rows else x for x in inputs]
        if rows not in self._graphs:
            self._graphs[rows] = self._captured(rows, inputs)
        index, graph = self._graphs[rows]
        index.copy_(self._index(padded))
        outputs = graph.replay(inputs, list(self._counts[:, padded]))
        for row, increment in enumerate(graph.increments):
            self._counts[row, list(slots)] += increment
        return [output[: len(slots)].clone() for output in outputs]

    def _captured(self, rows: int, inputs: Sequence[Tensor]) -> tuple[Tensor, StepGraph]:
        """Index of the slots and graph of a bucket. The step runs once before, as kernels are compiled at their first call."""
        index = self._index([self._spare] * rows)
        step = partial(self._gathered_step, index)
        for row, slot in enumerate(self._count_slots):
            slot.set(self._counts[row, [self._spare] * rows])
        step(inputs)
        return index, StepGraph(step, inputs, self._count_slots, rows, self._capture, self._noise)

    def _gathered_step(self, index: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        for slot, tensor in self._tensors:
            slot.set(tensor.index_select(0, index))
        outputs = self._step(inputs, self._state)
        for slot, tensor in self._tensors:
            tensor.index_copy_(0, index, slot.get())
        return outputs

    def _index(self, slots: Sequence[int]) -> Tensor:
        device = self._tensors[0][1].device
        index = torch.tensor(list(slots), pin_memory=device.type == "cuda")  # pinned, so that the host does not wait
        return index.to(device, non_blocking=True)
