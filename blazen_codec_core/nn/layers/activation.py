"""Pointwise layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import epilogue as activations
from ..kernels.epilogue import Epilogue
from .base import Layer
from .fusion import Pointwise


class Snake(Pointwise):
    """Snake activation `x + sin(alpha x)^2 / alpha`, with an alpha for each channel.

    Source: Ziyin et al. 2020, "Neural networks fail to learn periodic functions and how to fix it".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self._prepared: Epilogue | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.alpha.uniform_(0.5, 1.5, generator=generator)

    @property
    def activation(self) -> Epilogue:
        return self._prepared or Epilogue(activation=activations.SNAKE, parameters=(self.alpha, self._inverse()))

    def differentiable(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, torch.sin(x * self.alpha).square(), self._inverse())

    def prepare(self) -> None:
        super().prepare()
        alpha = self.alpha.detach().float()
        self._prepared = Epilogue(activation=activations.SNAKE, parameters=(alpha, (alpha + 1e-9).reciprocal()))

    def _inverse(self) -> Tensor:
        return (self.alpha + 1e-9).reciprocal()


class ELU(Pointwise):
    """Exponential linear unit: `x` where it is positive, else `exp(x) - 1`.

    Source: Clevert et al. 2016, "Fast and accurate deep network learning by exponential linear units".
    """

    activation = Epilogue(activation=activations.ELU)

    def differentiable(self, x: Tensor) -> Tensor:
        return F.elu(x)


VECTORS = 64
"""Frames of whole vectors: PyTorch computes what is left over by another function, which rounds otherwise."""


class Tanh(Layer):
    """Hyperbolic tangent, which bounds the output to -1 … 1."""

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return torch.tanh(x)
        frames = x.shape[1]
        padded = F.pad(x, (0, 0, 0, -frames % VECTORS))
        return padded.tanh_()[:, :frames]
