"""Synthetic test signals, and slices of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..specs import CodecSpec


def voice(seconds: float, sample_rate: int, seed: int = 0) -> NDArray[np.float32]:
    """Synthesize a speech-like signal `(samples,)`: syllables of harmonics under moving formants, breath and pauses."""
    return _voice(seconds, sample_rate, seed).copy()


@lru_cache(maxsize=64)
def _voice(seconds: float, sample_rate: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    n = round(seconds * sample_rate)
    t = np.arange(n) / sample_rate

    def moving(low: float, high: float, rate: float) -> NDArray[np.float64]:
        knots = max(4, int(seconds * rate))
        return np.interp(t, np.linspace(0, max(seconds, 1e-3), knots), rng.uniform(low, high, knots))

    pitch = moving(90, 220, 3)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants = [(moving(300, 800, 5), 90.0), (moving(900, 2200, 5), 120.0), (moving(2300, 3000, 4), 180.0)]
    sound = np.zeros(n)
    for k in range(1, 28):
        gain = sum(1 / (1 + ((k * pitch - centre) / width) ** 2) for centre, width in formants)
        sound += gain * np.sin(k * phase) / np.sqrt(k)
    syllables = np.clip(moving(-0.5, 1, 8), 0, 1)
    breath = rng.standard_normal(n) * np.clip(moving(-0.6, 0.6, 6), 0, 1)
    out = 0.2 * sound * syllables + 0.05 * breath
    return out.astype(np.float32)


def recording(spec: CodecSpec, seconds: float, seed: int = 0, channels: int | None = None) -> NDArray[np.float32]:
    """Synthesize voices for a model, `(channels, samples)`; by default with the model's channels."""
    count = spec.channels if channels is None else channels
    return np.stack([voice(seconds, spec.sample_rate, 100 * channel + seed) for channel in range(count)])


def pieces(length: int, sizes: list[int] | int, seed: int = 0) -> list[slice]:
    """Cut the range 0 … length into slices of one size, or of sizes that repeat."""
    sizes = [sizes] if isinstance(sizes, int) else sizes
    cuts, start, number = [], 0, 0
    while start < length:
        size = sizes[number % len(sizes)]
        cuts.append(slice(start, min(length, start + size)))
        start, number = start + size, number + 1
    return cuts
