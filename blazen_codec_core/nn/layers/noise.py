"""Counter-based noise: it depends on the seed and the position alone, so every chunking of a stream gets the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..kernels import dispatch
from ..kernels.epilogue import Epilogue
from ..kernels.exporting import is_exporting
from .base import COUNTS, Layer, NoiseSource, State, StreamSetup
from .conv import Conv1d


class CounterNoise:
    """Standard normal noise from the counter-based generator Philox, through the Box-Muller transform.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    The key is `(seed, layer)` and the counter the position, so any value is computed without those before it. All signals of a
    batch get the same noise: equal channels stay equal, and a signal does not depend on its neighbours.
    """

    def __init__(self, seed: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.seed, self.device, self.dtype = seed, device, dtype

    def __call__(self, layer: int, position: int | NDArray[np.int64], count: int) -> Tensor:
        device, positions = self.device or torch.device("cpu"), np.atleast_1d(np.asarray(position, np.int64))
        noise = dispatch.random_normal(self.seed & (2**64 - 1), layer, positions, count, device, self.dtype)
        return noise.unsqueeze(2)


@dataclasses.dataclass
class NoiseState(State):
    noise: NoiseSource | None
    position: Any = dataclasses.field(default=0, metadata={COUNTS: True})


class NoiseBlock(Layer):
    """`x + noise * linear(x)`, as in SNAC's decoder; `layer` is the number of the block in its network."""

    def __init__(self, channels: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.linear = Conv1d(channels, channels, 1, bias=False, gain=0.3)

    def init_state(self, setup: StreamSetup) -> NoiseState:
        return NoiseState(setup.noise)

    def _scaled(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.linear.run_kernel(x, x.shape[1], 1, False, Epilogue(scale=noise, residual=x))

    def step(self, x: Tensor, state: NoiseState, last: bool) -> Tensor:
        frames = x.shape[1]
        if state.noise is None or not frames:
            return x
        noise = state.noise(self.layer, state.position, frames)  # signals that began at different times have their own
        state.position = state.position + frames
        if self.linear.takes_epilogue and not torch.is_grad_enabled():
            if len(noise) > 1:  # each frame has its own noise, and the layer sees frames one by one
                rows = x.reshape(1, -1, x.shape[2])
                return self._scaled(rows, noise.flatten()).reshape(x.shape)
            return self._scaled(x, noise.flatten())
        scaled = self.linear(x)
        if is_exporting():  # channels first, as convolutions before and after have them
            return (x.transpose(1, 2) + scaled.transpose(1, 2) * noise.transpose(1, 2)).transpose(1, 2)
        return torch.addcmul(x, scaled, noise) if torch.is_grad_enabled() else torch.addcmul(x, scaled, noise, out=scaled)
