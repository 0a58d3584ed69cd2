"""Counter-based normal noise with NumPy's Philox and the Box-Muller transform."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Philox
from numpy.typing import NDArray
from torch import Tensor

Transform = Callable[[NDArray[np.uint64]], NDArray[np.float32]]
PER_COUNTER = 8
"""Normals from one Philox counter: four words of 64 bits, two normals each."""


def box_muller(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Box-Muller transform of the halves of each word, `(words, 2)`."""
    uniform = ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi * 2.0**-32)
    radius = np.sqrt(-2 * np.log(uniform))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def _philox(seed: int, layer: int, counter: int) -> Philox:
    """The calling thread's generator at a counter; a new one would first draw a seed from the system."""
    generator: Philox | None = getattr(_local, "generator", None)
    if generator is None:
        generator = _local.generator = Philox(0)
        _local.state = generator.state
    state = _local.state
    state["state"]["key"][:] = seed, layer
    state["state"]["counter"][0] = counter
    generator.state = state
    return generator


_local = threading.local()


def random_normal(
    seed: int,
    layer: int,
    positions: NDArray[np.int64],
    count: int,
    device: torch.device,
    dtype: torch.dtype,
    transform: Transform = box_muller,
) -> Tensor:
    """`count` standard normal values from each position on, `(rows, count)`.

    Args:
        transform: The Box-Muller transform.
    """
    values = [_normals(seed, layer, position, count, transform) for position in positions.tolist()]
    return torch.from_numpy(np.stack(values)).to(device, dtype)


def _normals(seed: int, layer: int, position: int, count: int, transform: Transform) -> NDArray[np.float32]:
    first, skip = divmod(position, PER_COUNTER)
    counters = -(-(skip + count) // PER_COUNTER)
    words = _philox(seed, layer, first).random_raw(counters * 4)
    return transform(words).reshape(-1)[skip : skip + count]
