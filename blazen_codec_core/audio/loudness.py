"""Loudness of audio (ITU-R BS.1770-4), measured piece by piece, and gains to reach a level. Needs the extra `loudness`."""

from __future__ import annotations

import importlib.util
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineNotAvailable, InvalidInput
from ..validation import Pcm, check_audio, check_rate

CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)
"""Left, right, centre, and the surround channels; loudness is defined for no more."""
BLOCK_SECONDS, OVERLAP = 0.4, 0.75
SHORTEST_SECONDS = 0.5
"""Shorter audio is measured as if silence followed."""
QUIETEST = -70.0
"""Blocks below this do not count, and nothing is quieter; in LUFS."""
GATE = -10.0
"""Nor do blocks so far below the mean of the others."""
OFFSET = -0.691
FULL_SCALE = 1.0
LOWEST_RATE = 4000
"""Hertz; below, the weighting filters have no room."""
MISSING = "loudness needs pyloudnorm: pip install 'blazen-codec-core[loudness]'"
AT_A_TIME = 1 << 18
"""Samples of which the meter makes copies in double precision."""


def check_available() -> None:
    """Raises `EngineNotAvailable` where pyloudnorm is missing."""
    if importlib.util.find_spec("pyloudnorm") is None:
        raise EngineNotAvailable(MISSING)


class LoudnessMeter:
    """The loudness of a signal of which pieces are pushed; memory grows by a number a channel every 100 ms.

    The weighting filters are those of pyloudnorm (Steinmetz & Reiss 2021, "pyloudnorm: A simple yet flexible loudness meter in
    Python"); a block that the signal ends in counts as if silence followed.

    Raises:
        EngineNotAvailable: pyloudnorm is not installed.
        InvalidInput: There are more channels than loudness is defined for, or the rate is too low.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        if not 1 <= channels <= len(CHANNEL_GAINS):
            raise InvalidInput(f"loudness is defined for 1 to {len(CHANNEL_GAINS)} channels, not for {channels}")
        if sample_rate < LOWEST_RATE:
            raise InvalidInput(f"loudness is measured at sample rates from {LOWEST_RATE} Hz on, not at {sample_rate}")
        try:
            from pyloudnorm import IIRfilter
        except ImportError as error:
            raise EngineNotAvailable(MISSING) from error
        shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
        high_pass = IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
        self._filters = [(stage.b, stage.a) for stage in (shelf, high_pass)]
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._rate = sample_rate
        self._block = int(BLOCK_SECONDS * sample_rate)
        self._hop = int(BLOCK_SECONDS * sample_rate * (1 - OVERLAP))
        self._rest = np.zeros((channels, 0))
        self._energies = array("d")  # not small arrays, which would lie between the large ones of a network
        self.samples = 0
        self.peaks = np.zeros(channels)
        """The largest magnitude in each channel."""

    def push(self, pcm: Pcm) -> None:
        """The next samples, `(channels, samples)`."""
        for start in range(0, pcm.shape[1], AT_A_TIME):
            piece = pcm[:, start : start + AT_A_TIME]
            self.samples += piece.shape[1]
            self.peaks = np.maximum(self.peaks, np.abs(piece).max(axis=1))
            self._measure(piece)

    def finish(self) -> float:
        """The loudness of all channels together, in LUFS; `QUIETEST` at least. Nothing can be pushed any more."""
        return integrated(self._all_energies(), CHANNEL_GAINS[: len(self.peaks)])

    def finish_each(self) -> tuple[float, ...]:
        """The loudness of each channel alone."""
        energies = self._all_energies()
        return tuple(integrated(energies[:, channel : channel + 1], (1.0,)) for channel in range(len(self.peaks)))

    def _all_energies(self) -> NDArray[np.float64]:
        """Energies of all blocks, `(blocks, channels)`; zeros fill the last block."""
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
        """Number of samples that the last block lacks; 0 if every sample is in some block."""
        left = self._rest.shape[1] - (self._block - self._hop if self._energies else 0)
        return self._block - self._rest.shape[1] if left > 0 else 0

    def _blocks(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes the energies of all whole blocks; returns what later ones still need."""
        at = 0
        while squares.shape[1] - at >= self._block:
            self._energies.extend(squares[:, at : at + self._block].sum(1) / (BLOCK_SECONDS * self._rate))
            at += self._hop
        return squares[:, at:].copy()


def integrated(energies: NDArray[np.float64], gains: tuple[float, ...]) -> float:
    """The loudness of blocks `(blocks, channels)`, of which the quiet ones do not count."""
    powers = energies @ np.array(gains)
    with np.errstate(divide="ignore"):
        levels = OFFSET + 10 * np.log10(powers)
        counted = levels > QUIETEST
        if not counted.any():
            return QUIETEST
        counted &= levels > OFFSET + 10 * np.log10(powers[counted].mean()) + GATE
        return max(QUIETEST, float(OFFSET + 10 * np.log10(powers[counted].mean())))


def measure(pieces: Iterable[Pcm], sample_rate: int, channels: int) -> LoudnessMeter:
    """A meter that has heard all of it."""
    meter = LoudnessMeter(sample_rate, channels)
    for piece in pieces:
        meter.push(piece)
    return meter


def integrated_loudness(pcm: Pcm, sample_rate: int) -> float:
    """The integrated loudness of audio `(channels, samples)`, in LUFS.

    Raises:
        EngineNotAvailable, InvalidInput: As `LoudnessMeter`.
    """
    pcm = check_audio(pcm)
    return measure([pcm], check_rate(sample_rate), pcm.shape[0]).finish()


def gains(change: Iterable[float]) -> Pcm:
    """Factors for the decibels of each channel, `(channels, 1)`."""
    return np.array([10 ** (decibels / 20) for decibels in change], np.float32)[:, None]


def changes(wanted: Iterable[float], is_now: Iterable[float]) -> Pcm:
    """The factors that bring channels to the loudness they should have, `(channels, 1)`."""
    return gains(target - measured for target, measured in zip(wanted, is_now, strict=True))


@dataclass(frozen=True)
class Level:
    """Gains that bring a recording to a loudness, and the loudness that it has without them.

    Attributes:
        loudness: That each of its channels has alone, in LUFS.
        factors: By which each channel is multiplied, `(channels, 1)`; a channel that would leave -1 … 1 is kept inside.
    """

    loudness: tuple[float, ...]
    factors: Pcm

    @classmethod
    def to(cls, target: float, meter: LoudnessMeter) -> Level:
        """Return the gains that bring measured audio, all channels together, to `target` LUFS."""
        factor = gains([target - meter.finish()])
        peaks = np.maximum(meter.peaks[:, None] * factor, FULL_SCALE)
        return cls(meter.finish_each(), np.asarray(factor * FULL_SCALE / peaks, np.float32))


def check_target(normalize_db: float) -> float:
    """Raises `InvalidInput` unless this is a loudness that audio can be brought to."""
    if isinstance(normalize_db, bool) or not isinstance(normalize_db, int | float | np.number):
        raise InvalidInput(f"normalize_db is a loudness in LUFS, such as -16, not {normalize_db!r}")
    if not QUIETEST <= float(normalize_db) <= 0:
        raise InvalidInput(f"normalize_db is a loudness from {QUIETEST:g} to 0 LUFS, such as -16, not {normalize_db!r}")
    return float(normalize_db)
