"""Streaming loudness measurement (ITU-R BS.1770-4) and gains to reach a target. Needs the extra `loudness`."""

from __future__ import annotations

import importlib.util
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..installation import missing
from ..validation import Pcm, check_audio, check_rate

CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)
"""Weights of left, right, centre and two surround channels, the most for which loudness is defined."""
BLOCK_SECONDS, OVERLAP = 0.4, 0.75
SHORTEST_SECONDS = 0.5
"""Minimum duration in seconds; shorter audio is padded with silence."""
QUIETEST = -70.0
"""Absolute gate in LUFS, and the lowest loudness that is reported."""
GATE = -10.0
"""Relative gate in LU below the mean of the blocks that pass the absolute gate."""
OFFSET = -0.691
FULL_SCALE = 1.0
LOWEST_RATE = 4000
"""Lowest sample rate in Hz at which the weighting filters are defined."""
NEEDED = "loudness needs pyloudnorm"
AT_A_TIME = 1 << 18
"""Samples that the meter converts to double precision at a time."""


def check_available() -> None:
    """Raise `EngineNotAvailable` if pyloudnorm is missing."""
    if importlib.util.find_spec("pyloudnorm") is None:
        raise missing(NEEDED, "loudness")


class LoudnessMeter:
    """Streaming loudness meter. Memory grows by one number per channel every 100 ms.

    The weighting filters are pyloudnorm's (Steinmetz & Reiss 2021, "pyloudnorm: A simple yet flexible loudness meter in Python").
    The last partial block is padded with silence.

    Raises:
        EngineNotAvailable: pyloudnorm is not installed.
        InvalidInput: There are too many channels, or the sample rate is too low.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        if not 1 <= channels <= len(CHANNEL_GAINS):
            raise InvalidInput(f"audio has {channels} channels; loudness is defined for 1 to {len(CHANNEL_GAINS)}")
        if sample_rate < LOWEST_RATE:
            raise InvalidInput(f"sample rate is {sample_rate} Hz; loudness needs at least {LOWEST_RATE} Hz")
        try:
            from pyloudnorm import IIRfilter
        except ImportError as error:
            raise missing(NEEDED, "loudness") from error
        shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
        high_pass = IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
        self._filters = [(stage.b, stage.a) for stage in (shelf, high_pass)]
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._rate = sample_rate
        self._block = int(BLOCK_SECONDS * sample_rate)
        self._hop = int(BLOCK_SECONDS * sample_rate * (1 - OVERLAP))
        self._rest = np.zeros((channels, 0))
        self._energies = array("d")  # not many small arrays, which would fragment the heap
        self.samples = 0
        self.peaks = np.zeros(channels)
        """Peak magnitude per channel."""

    def push(self, pcm: Pcm) -> None:
        """Add samples `(channels, samples)`."""
        for start in range(0, pcm.shape[1], AT_A_TIME):
            piece = pcm[:, start : start + AT_A_TIME]
            self.samples += piece.shape[1]
            self.peaks = np.maximum(self.peaks, np.abs(piece).max(axis=1))
            self._measure(piece)

    def finish(self) -> float:
        """Return the loudness of all channels together in LUFS, at least `QUIETEST`. Ends the measurement."""
        return integrated(self._all_energies(), CHANNEL_GAINS[: len(self.peaks)])

    def finish_each(self) -> tuple[float, ...]:
        """Return the loudness of each channel alone in LUFS. Ends the measurement."""
        energies = self._all_energies()
        return tuple(integrated(energies[:, channel : channel + 1], (1.0,)) for channel in range(len(self.peaks)))

    def _all_energies(self) -> NDArray[np.float64]:
        """Return the energies of all blocks, `(blocks, channels)`; the last block is zero-padded."""
        if padding := max(0, int(SHORTEST_SECONDS * self._rate) - self.samples):
            self.samples += padding
            self._measure(np.zeros((len(self.peaks), padding), np.float32))
        if missing := self._missing():
            self._rest = self._blocks(np.pad(self._rest, ((0, 0), (0, missing))))
        return np.array(self._energies).reshape(-1, len(self.peaks))

    def _measure(self, pcm: Pcm) -> None:
        from scipy.signal import lfilter

        x: Any = pcm.astype(np.float64)
        for number, (b, a) in enumerate(self._filters):
            x, self._states[number] = lfilter(b, a, x, zi=self._states[number])
        self._rest = self._blocks(np.concatenate([self._rest, x * x], axis=1))

    def _missing(self) -> int:
        """Return the number of samples missing from the last block; 0 if all samples are in blocks."""
        left = self._rest.shape[1] - (self._block - self._hop if self._energies else 0)
        return self._block - self._rest.shape[1] if left > 0 else 0

    def _blocks(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add the energies of all complete blocks; return the samples that later blocks need."""
        at = 0
        while squares.shape[1] - at >= self._block:
            self._energies.extend(squares[:, at : at + self._block].sum(1) / (BLOCK_SECONDS * self._rate))
            at += self._hop
        return squares[:, at:].copy()


def integrated(energies: NDArray[np.float64], gains: tuple[float, ...]) -> float:
    """Return the gated loudness in LUFS of block energies `(blocks, channels)`."""
    powers = energies @ np.array(gains)
    with np.errstate(divide="ignore"):
        levels = OFFSET + 10 * np.log10(powers)
        counted = levels > QUIETEST
        if not counted.any():
            return QUIETEST
        counted &= levels > OFFSET + 10 * np.log10(powers[counted].mean()) + GATE
        return max(QUIETEST, float(OFFSET + 10 * np.log10(powers[counted].mean())))


def measure(pieces: Iterable[Pcm], sample_rate: int, channels: int) -> LoudnessMeter:
    """Measure a signal given as chunks; return the meter."""
    meter = LoudnessMeter(sample_rate, channels)
    for piece in pieces:
        meter.push(piece)
    return meter


def integrated_loudness(pcm: Pcm, sample_rate: int) -> float:
    """Return the integrated loudness of audio `(channels, samples)` in LUFS.

    Raises:
        EngineNotAvailable: pyloudnorm is not installed.
        InvalidInput: As for `LoudnessMeter`.
    """
    pcm = check_audio(pcm)
    return measure([pcm], check_rate(sample_rate), pcm.shape[0]).finish()


def gains(change: Iterable[float]) -> Pcm:
    """Convert decibels per channel to factors `(channels, 1)`."""
    return np.array([10 ** (decibels / 20) for decibels in change], np.float32)[:, None]


def changes(wanted: Iterable[float], is_now: Iterable[float]) -> Pcm:
    """Return the factors `(channels, 1)` that bring channels from a measured to a wanted loudness."""
    return gains(target - measured for target, measured in zip(wanted, is_now, strict=True))


@dataclass(frozen=True)
class Level:
    """Gains that normalize a recording, and its original loudness.

    Attributes:
        loudness: Original loudness of each channel alone, in LUFS.
        factors: Gain per channel, `(channels, 1)`, reduced where the channel would exceed -1 … 1.
    """

    loudness: tuple[float, ...]
    factors: Pcm

    @classmethod
    def to(cls, target: float, meter: LoudnessMeter) -> Level:
        """Compute the gains that bring measured audio, all channels together, to `target` LUFS."""
        factor = gains([target - meter.finish()])
        peaks = np.maximum(meter.peaks[:, None] * factor, FULL_SCALE)
        return cls(meter.finish_each(), np.asarray(factor * FULL_SCALE / peaks, np.float32))


def check_target(normalize_db: float) -> float:
    """Validate a target loudness in LUFS; raise `InvalidInput` if it is invalid."""
    if isinstance(normalize_db, bool) or not isinstance(normalize_db, int | float | np.number):
        raise InvalidInput(f"normalize_db is {normalize_db!r}; expected a loudness in LUFS, such as -16")
    if not QUIETEST <= float(normalize_db) <= 0:
        raise InvalidInput(f"normalize_db is {normalize_db!r}; expected a loudness from {QUIETEST:g} to 0 LUFS, such as -16")
    return float(normalize_db)
