"""Standard normal values of a counter-based generator: NumPy's Philox through the Box-Muller transform.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box & Muller 1958.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

Transform = Callable[[NDArray[np.uint64]], NDArray[np.float32]]
PER_COUNTER = 8
"""Values of one Philox counter: four words of 64 bits, two values each."""


def box_muller(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Box-Muller transform of the halves of each word, `(words, 2)`."""
    uniform = ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi * 2.0**-32)
    radius = np.sqrt(-2 * np.log(uniform))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def normal_values(seed: int, layer: int, position: int, count: int, transform: Transform = box_muller) -> NDArray[np.float32]:
    """Values `position` to `position + count` of a layer's sequence, `(count,)`.

    Args:
        transform: The Box-Muller transform.
    """
    first, skip = divmod(position, PER_COUNTER)
    counters = -(-(skip + count) // PER_COUNTER)
    words = _philox(seed, layer, first).random_raw(counters * 4)
    return transform(words).reshape(-1)[skip : skip + count]


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
