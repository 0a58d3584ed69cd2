"""Normalization, over time or over channels."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.aten.group_norm import normalize
from ..kernels.epilogue import IDENTITY, Epilogue
from ..kernels.interface import ChannelNormKernel, GroupNormKernel
from .base import Layer, State, StreamSetup
from .fusion import FusableLayer


@dataclasses.dataclass
class BufferedState(State):
    held: Tensor


class TimeGroupNorm(FusableLayer):
    """Group normalisation with one group over time (Wu & He 2018, "Group normalization"), then a gain and a bias a channel.

    It needs the whole signal, which is held back until the end: networks with it are for signals of bounded length, such as
    segments.

    Args:
        inplace: The input may be overwritten, as the output of a convolution may.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5, *, inplace: bool = False) -> None:
        super().__init__()
        self.channels, self.epsilon, self.inplace = channels, epsilon, inplace
        self.weight = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))
        self._prepared: GroupNormKernel | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.uniform_(0.8, 1.2, generator=generator)
        self.bias.uniform_(-0.1, 0.1, generator=generator)

    def prepare(self) -> None:
        self._prepared = dispatch.group_norm(self.weight, self.bias, self.epsilon)

    @property
    def takes_epilogue(self) -> bool:
        return self._prepared is not None

    def init_state(self, setup: StreamSetup) -> BufferedState:
        return BufferedState(setup.zeros(0, self.channels))

    def frames_out(self, frames: int, last: bool) -> int:
        return frames if last else 0

    def step_fused(self, prologue: Epilogue, x: Tensor, state: BufferedState, last: bool, epilogue: Epilogue) -> Tensor:
        assert prologue is IDENTITY  # which it does not take
        if state.held.shape[1]:
            x = torch.cat([state.held, x], dim=1)
        state.held = x[:, :0].clone() if last else x  # a view would keep the whole buffer alive
        if not last or not x.shape[1]:
            return x[:, :0]
        if self._prepared and not torch.is_grad_enabled():
            return self._prepared(x, epilogue, inplace=self.inplace)
        return normalize(x, self.weight, self.bias, self.epsilon, inplace=self.inplace)


class ChannelNorm(Layer):
    """Normalization of each frame over its channels."""

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.epsilon = channels, epsilon
        self.weight = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias: nn.Parameter | None = None
        self._prepared: ChannelNormKernel | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.uniform_(0.8, 1.2, generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-0.1, 0.1, generator=generator)

    def prepare(self) -> None:
        self._prepared = dispatch.channel_norm(self.weight, self.bias, self.epsilon)

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize `(batch, frames, channels)`."""
        if self._prepared and not torch.is_grad_enabled():
            return self._prepared(x)
        return self._differentiable(x)

    def _differentiable(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class LayerNorm(ChannelNorm):
    """Mean 0 and variance 1 over the channels of each frame, then a gain and a bias a channel.

    Source: Ba et al. 2016, "Layer normalization".
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__(channels, epsilon)
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))

    def _differentiable(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.epsilon)


class RMSNorm(ChannelNorm):
    """Mean square 1 over the channels of each frame, then a gain a channel.

    Source: Zhang & Sennrich 2019, "Root mean square layer normalization".
    """

    def _differentiable(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
        factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * factor).to(x.dtype) * self.weight
