"""Normalization over time."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.epilogue import NOTHING, Epilogue
from .base import Layer, Pointwise, State, StreamSetup


@dataclasses.dataclass
class BufferedState(State):
    held: Tensor


class TimeGroupNorm(Layer):
    """Mean 0 and variance 1 over all frames and channels of the signal, then a gain and a bias a channel.

    Group normalisation with one group (Wu & He 2018, "Group normalization"). It needs the whole signal, so all of it is held
    back until the end: networks with it are for signals of bounded length, such as segments.

    Args:
        inplace: The input may be written over, as what a convolution returns may.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5, *, inplace: bool = False) -> None:
        super().__init__()
        self.channels, self.epsilon, self.inplace = channels, epsilon, inplace
        self.weight = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))
        self._prepared: dispatch.Norm | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.uniform_(0.8, 1.2, generator=generator)
        self.bias.uniform_(-0.1, 0.1, generator=generator)

    def prepare(self) -> None:
        self._prepared = dispatch.norm(self.weight, self.bias, self.epsilon)

    @property
    def accepts_epilogue(self) -> bool:
        return self._prepared is not None

    def init_state(self, setup: StreamSetup) -> BufferedState:
        return BufferedState(setup.zeros(0, self.channels))

    def frames_out(self, frames: int, last: bool) -> int:
        return frames if last else 0

    def step(self, x: Tensor, state: BufferedState, last: bool) -> Tensor:
        return self.step_fused(None, x, state, last)

    def step_fused(
        self, before: Pointwise | None, x: Tensor, state: BufferedState, last: bool, after: Epilogue = NOTHING
    ) -> Tensor:
        x = before.step(x, None, last) if before else x
        if state.held.shape[1]:
            x = torch.cat([state.held, x], dim=1)
        state.held = x[:, :0].clone() if last else x  # a view would keep all of it
        if not last or not x.shape[1]:
            return x[:, :0]
        if self._prepared and not torch.is_grad_enabled():
            return self._prepared(x, after, inplace=self.inplace)
        return dispatch.normalize(x, self.weight, self.bias, self.epsilon, inplace=self.inplace)
