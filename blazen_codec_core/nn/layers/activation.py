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


class SnakeBeta(Pointwise):
    """Snake with a magnitude of its own, `x + sin(a x)^2 / b`; the parameters alpha and beta are the logarithms of a and b.

    Source: Lee et al. 2023, "BigVGAN: a universal neural vocoder with large-scale training".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels, dtype=torch.float32))
        self.beta = nn.Parameter(torch.zeros(channels, dtype=torch.float32))
        self._prepared: Epilogue | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.alpha.uniform_(-0.5, 0.5, generator=generator)
        self.beta.uniform_(-0.5, 0.5, generator=generator)

    @property
    def activation(self) -> Epilogue:
        return self._prepared or Epilogue(activation=activations.SNAKE, parameters=self._factors(self.alpha, self.beta))

    def differentiable(self, x: Tensor) -> Tensor:
        a, inverse = self._factors(self.alpha, self.beta)
        return torch.addcmul(x, torch.sin(x * a).square(), inverse)

    def prepare(self) -> None:
        super().prepare()
        parameters = self._factors(self.alpha.detach().float(), self.beta.detach().float())
        self._prepared = Epilogue(activation=activations.SNAKE, parameters=parameters)

    @staticmethod
    def _factors(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The frequency a, and the inverse of b."""
        return alpha.exp(), (beta.exp() + 1e-9).reciprocal()


class ELU(Pointwise):
    """Exponential linear unit: `x` where it is positive, else `exp(x) - 1`.

    Source: Clevert et al. 2016, "Fast and accurate deep network learning by exponential linear units".
    """

    activation = Epilogue(activation=activations.ELU)

    def differentiable(self, x: Tensor) -> Tensor:
        return F.elu(x)


class GELU(Pointwise):
    """Gaussian error linear unit: `x` times the standard normal distribution function, computed with the error function.

    Source: Hendrycks & Gimpel 2016, "Gaussian error linear units".
    """

    activation = Epilogue(activation=activations.GELU)

    def differentiable(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class SiLU(Pointwise):
    """Sigmoid linear unit `x * sigmoid(x)`; source as of `GELU`."""

    activation = Epilogue(activation=activations.SILU)

    def differentiable(self, x: Tensor) -> Tensor:
        return F.silu(x)


class LayerScale(Pointwise):
    """A factor for each channel, which begins small (Touvron et al. 2021, "Going deeper with image transformers").

    Args:
        initial: First value of all factors.
    """

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.scale = nn.Parameter(torch.full((channels,), initial, dtype=torch.float32))
        self._prepared: Epilogue | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.scale.uniform_(0.5 * self.initial, 1.5 * self.initial, generator=generator)

    @property
    def activation(self) -> Epilogue:
        return self._prepared or Epilogue(activation=activations.GAIN, parameters=(self.scale, self.scale))

    def differentiable(self, x: Tensor) -> Tensor:
        return x * self.scale

    def prepare(self) -> None:
        super().prepare()
        scale = self.scale.detach().float()
        self._prepared = Epilogue(activation=activations.GAIN, parameters=(scale, scale))


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


class Clamp(Layer):
    """Values outside of a range replaced by its bounds."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        return x.clamp(self.least, self.most)
