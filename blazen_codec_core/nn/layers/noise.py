"""Counter-based noise: it depends on the seed and the position alone, so every chunking of a stream gets the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.random import Philox
from numpy.typing import NDArray
from torch import Tensor

from ..kernels.backends import gpu_kernels_for, load_cpu_kernels
from ..kernels.epilogue import Epilogue
from .base import COUNTS, Layer, NoiseSource, State, StreamSetup
from .conv import Conv1d


class CounterNoise:
    """Standard normal noise from the counter-based generator Philox, through the Box-Muller transform.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    The key is `(seed, layer)` and the counter the position, so any value is computed without those before it. All signals of a
    batch get the same noise: equal channels stay equal, and a signal does not depend on its neighbours.
    """

    _PER_COUNTER = 8
    """Normals from one Philox counter: four words of 64 bits, two normals each."""

    def __init__(self, seed: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.seed, self.device, self.dtype = seed, device, dtype

    def __call__(self, layer: int, position: int, count: int) -> Tensor:
        if self.device and (gpu := gpu_kernels_for(self.device)):
            noise: Tensor = gpu.random_normal(self.seed & (2**64 - 1), layer, position, count, self.device, self.dtype)
            return noise.reshape(1, count, 1)
        first, skip = divmod(position, self._PER_COUNTER)
        blocks = -(-(skip + count) // self._PER_COUNTER)
        generator = Philox(key=np.array([self.seed & (2**64 - 1), layer], np.uint64), counter=first)
        words = generator.random_raw(blocks * 4)
        cpu = load_cpu_kernels()
        normals = (cpu.box_muller if cpu else _box_muller)(words).reshape(-1)
        values = torch.from_numpy(normals[skip : skip + count])
        return values.to(self.device, self.dtype).reshape(1, count, 1)


def _box_muller(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Box-Muller transform of the halves of each word, `(words, 2)`."""
    uniform = ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi * 2.0**-32)
    radius = np.sqrt(-2 * np.log(uniform))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


@dataclasses.dataclass
class NoiseState(State):
    noise: NoiseSource | None
    position: int = dataclasses.field(default=0, metadata={COUNTS: True})


class NoiseBlock(Layer):
    """`x + noise * linear(x)`, as in SNAC's decoder; `layer` is the number of the block in its network."""

    def __init__(self, channels: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.linear = Conv1d(channels, channels, 1, bias=False, gain=0.3)

    def init_state(self, setup: StreamSetup) -> NoiseState:
        return NoiseState(setup.noise)

    def step(self, x: Tensor, state: NoiseState, last: bool) -> Tensor:
        frames = x.shape[1]
        if state.noise is None or not frames:
            return x
        noise = state.noise(self.layer, state.position, frames)
        state.position += frames
        if self.linear.accepts_epilogue and not torch.is_grad_enabled():
            return self.linear.run_kernel(x, frames, 1, False, Epilogue(scale=noise.reshape(frames), residual=x))
        scaled = self.linear(x)
        return torch.addcmul(x, scaled, noise) if torch.is_grad_enabled() else torch.addcmul(x, scaled, noise, out=scaled)
