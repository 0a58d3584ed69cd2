"""Fusion: a pass over a chain of layers that folds pointwise ones into the kernels before or after them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels import dispatch
from ..kernels.backends import load_cpu_backend
from ..kernels.epilogue import IDENTITY, Epilogue
from ..pipeline import Join, Split, Step
from .base import Layer


def activate(activation: Epilogue, x: Tensor) -> Tensor:
    """Activation of a signal `(batch, frames, channels)`; `x` itself if it is `IDENTITY`. It records no gradients."""
    if activation is IDENTITY:
        return x
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    dispatch.elementwise(x.device, x.dtype).write_activation(activation, x, out)
    return out


class Pointwise(Layer):
    """A layer whose output frames each depend on the same input frame alone, described by an activation."""

    @property
    @abstractmethod
    def activation(self) -> Epilogue:
        """The layer as an epilogue that has an activation only."""

    @abstractmethod
    def differentiable(self, x: Tensor) -> Tensor:
        """The layer in PyTorch's operations, which record gradients."""

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        return self.differentiable(x) if torch.is_grad_enabled() else activate(self.activation, x)

    def prepare(self) -> None:
        load_cpu_backend()  # compiles its kernels now, not in the first step


class FusableLayer(Layer):
    """A layer that may compute the activation of its input and an epilogue of its output along with its own kernel."""

    @property
    def takes_prologue(self) -> bool:
        """Tell whether the layer copies its input first, so that an activation of it costs nothing."""
        return False

    @property
    def takes_epilogue(self) -> bool:
        """Tell whether the layer's kernel applies epilogues; no other gets one."""
        return False

    @abstractmethod
    def step_fused(self, prologue: Epilogue, x: Tensor, state: Any, last: bool, epilogue: Epilogue) -> Tensor:
        """`step` of the activation `prologue` of `x`, and then `epilogue`."""

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        return self.step_fused(IDENTITY, x, state, last, IDENTITY)


@dataclass(frozen=True)
class Stage:
    """A layer of a chain, with the pointwise layers that are fused with it.

    Attributes:
        index: Number of the layer, and of its state, in the chain.
        is_fused: Run `step_fused`.
        takes_outer_prologue: The activation before the whole chain may be this stage's prologue.
        takes_outer_epilogue: The epilogue after the whole chain may be this stage's.
    """

    layer: Any
    index: int
    is_fused: bool
    prologue: Epilogue = IDENTITY
    epilogue: Epilogue = IDENTITY
    takes_outer_prologue: bool = False
    takes_outer_epilogue: bool = False


def takes_prologue(layer: Layer) -> bool:
    return isinstance(layer, FusableLayer) and layer.takes_prologue


def takes_epilogue(layer: Layer) -> bool:
    return isinstance(layer, FusableLayer) and layer.takes_epilogue


def fuse(layers: Sequence[Layer], start: int, stop: int) -> tuple[Stage, ...]:
    """Plan the stages of the prepared layers `start` to `stop` of a chain.

    A pointwise layer becomes the prologue of the next layer if that takes one, or else the epilogue of the layer before it.
    """

    def becomes_prologue(index: int) -> bool:
        return isinstance(layers[index], Pointwise) and index + 1 < stop and takes_prologue(layers[index + 1])

    stages: list[Stage] = []
    index = start
    while index < stop:
        prologue, first = IDENTITY, index
        if becomes_prologue(index):
            prologue, index = _activation(layers[index]), index + 1
        layer, number = layers[index], index
        epilogue, index = IDENTITY, index + 1
        if takes_epilogue(layer) and index < stop and isinstance(layers[index], Pointwise) and not becomes_prologue(index):
            epilogue, index = _activation(layers[index]), index + 1
        stages.append(
            Stage(
                layer,
                number,
                isinstance(layer, FusableLayer),
                prologue,
                epilogue,
                takes_outer_prologue=first == start and takes_prologue(layer) and prologue is IDENTITY,
                takes_outer_epilogue=index == stop and takes_epilogue(layer) and epilogue is IDENTITY,
            )
        )
    return tuple(stages)


def _activation(layer: Layer) -> Epilogue:
    assert isinstance(layer, Pointwise)
    return layer.activation


def run_stages(
    stages: Sequence[Stage],
    x: Tensor,
    states: Sequence[Any],
    last: bool,
    prologue: Epilogue = IDENTITY,
    epilogue: Epilogue = IDENTITY,
) -> Tensor:
    """Run stages on the next frames of a signal.

    Args:
        states: States of all layers of the chain.
        prologue: Activation before the chain, which takes it.
        epilogue: Epilogue after the chain, which takes it.
    """
    for stage in stages:
        state = states[stage.index]
        if stage.is_fused:
            before = prologue if stage.takes_outer_prologue else stage.prologue
            after = epilogue if stage.takes_outer_epilogue else stage.epilogue
            x = stage.layer.step_fused(before, x, state, last, after)
        else:
            x = stage.layer.step(x, state, last)
    return x


def bound_steps(stages: Sequence[Stage], states: Sequence[Any]) -> Iterator[Step | Split | Join]:
    """Steps of a chain, bound to the states of its layers; see `Layer.steps`."""
    for stage in stages:
        state = states[stage.index]
        if stage.prologue is IDENTITY and stage.epilogue is IDENTITY:
            yield from stage.layer.steps(state)
        else:
            yield partial(stage.layer.step_fused, stage.prologue, state=state, epilogue=stage.epilogue)
