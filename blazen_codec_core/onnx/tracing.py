"""ONNX graphs of a half of a network, traced by `torch.export`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..errors import InferenceError
from ..nn.kernels.exporting import exporting
from ..nn.layers.base import State
from .half_networks import HalfNetwork
from .manifest import NEXT, NOISE, STATE, NoiseInput
from .states import named_tensors, with_tensors

if TYPE_CHECKING:
    from onnx_ir import Model

EXAMPLE_BLOCKS = 5
"""Units of the signal with which a graph of any length is traced."""
REMARKING = (
    "torch.onnx._internal.exporter._registration",
    "onnx_ir.passes.common.initializer_deduplication",
    "onnxscript.optimizer._constant_folding",
)
"""Loggers whose remarks are of no use to a caller."""
MOST_BLOCKS = 1 << 30
"""Bound of symbolic lengths, with which `torch.export` reasons."""


@dataclass(frozen=True)
class Step:
    """A step of a stream to trace.

    Attributes:
        blocks: Blocks of the input, or the least number of them.
        is_dynamic: The graph takes any number of blocks from there on.
        last: The signal ends with it.
        state: State before it; `None` at the beginning.
    """

    blocks: int
    is_dynamic: bool
    last: bool
    state: State | None = None

    @property
    def example_blocks(self) -> int:
        """Units of the example that it is traced with."""
        return EXAMPLE_BLOCKS if self.is_dynamic else self.blocks


@dataclass(frozen=True)
class Traced:
    """Graph of a step, and the noise that it takes."""

    model: Model
    noise: tuple[NoiseInput, ...]


class TracedStep(nn.Module):
    """A step with tensors alone as arguments and results: inputs, noise, and the tensors of the state."""

    def __init__(self, half: HalfNetwork, step: Step, noise: Sequence[NoiseInput]) -> None:
        super().__init__()
        self.source, self.stage, self.noise = half, step, noise
        self.state_names = [] if step.state is None else list(named_tensors(step.state))

    @property
    def input_names(self) -> list[str]:
        inputs, noise = self.source.shapes(1), [noise.name for noise in self.noise]
        return [*inputs, *noise, *(f"{STATE}{name}" for name in self.state_names)]

    def dynamic_shapes(self) -> Any:
        """Symbolic axes of each input for `torch.export`; `None` without any."""
        if not self.stage.is_dynamic:
            return None
        blocks = Dim("blocks", min=self.stage.blocks, max=MOST_BLOCKS)
        shapes = [*self.source.shapes(blocks).values(), *((noise.count(blocks),) for noise in self.noise)]
        axes = [{axis: length for axis, length in enumerate(shape) if not isinstance(length, int)} for shape in shapes]
        return ((*axes, *({} for _ in self.state_names)),)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        half, step, left = self.source, self.stage, iter(values)
        inputs = [next(left) for _ in half.shapes(1)]
        half.noise.values = {noise.layer: next(left) for noise in self.noise}
        tensors = dict(zip(self.state_names, left, strict=True))
        state = half.init_state() if step.state is None else with_tensors(step.state, tensors)
        outputs = half.step(inputs, state, step.last)
        return (*outputs, *(() if step.last else named_tensors(state).values()))


def run(half: HalfNetwork, step: Step, blocks: int) -> tuple[State, dict[int, int]]:
    """Run a step on an example; return the state after it, and the number of values of noise of each layer."""
    half.noise.values, half.noise.counts = None, {}
    state = half.init_state() if step.state is None else with_tensors(step.state, {})
    half.step(half.example(blocks), state, step.last)
    return state, half.noise.counts


def noise_inputs(half: HalfNetwork, step: Step) -> tuple[tuple[NoiseInput, ...], State]:
    """Noise that a step takes, whose amount grows linearly with its length; and the state after the step."""
    blocks = step.example_blocks
    state, counts = run(half, step, blocks)
    more = run(half, step, blocks + 1)[1] if step.is_dynamic else counts
    slopes = {layer: more[layer] - count for layer, count in counts.items()}
    noise = (
        NoiseInput(name=f"{NOISE}{layer}", layer=layer, slope=slopes[layer], offset=count - slopes[layer] * blocks)
        for layer, count in counts.items()
    )
    return tuple(noise), state


def trace(half: HalfNetwork, step: Step) -> Traced:
    """Trace a step.

    Raises:
        InferenceError: An axis would have a fixed length that must be dynamic.
    """
    with exporting(), quiet_exporter():
        noise, after = noise_inputs(half, step)
        module, blocks = TracedStep(half, step, noise), step.example_blocks
        state = {} if step.state is None else named_tensors(step.state)
        zeros = (torch.zeros(source.count(blocks), dtype=torch.float32) for source in noise)
        values = (*half.example(blocks), *zeros, *state.values())
        program = torch.export.export(module, values, dynamic_shapes=module.dynamic_shapes(), strict=False)
        outputs = [*half.output_names, *(f"{NEXT}{name}" for name in ({} if step.last else named_tensors(after)))]
        exported = torch.onnx.export(
            program, dynamo=True, input_names=module.input_names, output_names=outputs, optimize=True, verbose=False
        )
    assert exported is not None
    check_axes(half, step, exported.model)
    return Traced(exported.model, noise)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Context in which the exporter's remarks are dropped: on packages that it could also export, and on duplicates."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in REMARKING]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


def check_axes(half: HalfNetwork, step: Step, model: Model) -> None:
    """Raise `InferenceError` if an axis along time has a fixed length in a graph of any length."""
    if step.is_dynamic:
        for value in [*model.graph.inputs, *model.graph.outputs]:
            is_timed = value.name in half.block or value.name in half.output_names or value.name.startswith(NOISE)
            if is_timed and isinstance(value.shape[-1], int):
                raise InferenceError(
                    f"the graph of the {half.part} of {half.spec.name} would fix {value.name} to {value.shape[-1]}; report this"
                )


def forget_source(model: Model) -> None:
    """Remove the places in source code that nodes come from, which name files of this machine."""
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
