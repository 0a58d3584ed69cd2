"""Recordings through systems: what comes back, how good it is, and what brings all to one level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO

import numpy as np

from .. import cancellation
from ..audio import AudioReader, Resampler, loudness
from ..errors import InvalidInput
from ..evaluation.evaluate import MIN_SECONDS, Codebook, Scorer, codebooks, counts
from ..forks import cached_property
from ..tokens.tokens import CodecTokens
from ..transcode import ChannelMap
from ..validation import Pcm
from .aligned_roundtrip import AlignedRoundtrip
from .render import png
from .systems import System

LOWEST_RATE, HIGHEST_RATE = 8000, 48_000
"""Hertz; other recordings are resampled to the nearest. Browsers play no less, and codecs know no more."""
MOST_CHANNELS = 2
PIECE_SECONDS = 1.0
ORIGINAL = "original"
MOST_GAIN_DB = 20.0
"""By which what came back is made louder or quieter, at most, so that it is as loud as the original."""


class Clip:
    """A recording, or the beginning of it, as it is compared.

    Args:
        path: Where it is; only its name, if there is `content`.
        content: The file itself, open.
        seconds: Of it; all if `None`.
        mono: Its channels are mixed to one.

    Raises:
        InvalidInput: There is no such file, it is too short, or has more than two channels which are not mixed.
        CorruptFile: It cannot be read as audio.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        content: BinaryIO | None = None,
        seconds: float | None = None,
        mono: bool = False,
    ) -> None:
        self._reader = AudioReader(path, content=content, end=seconds, at_most=True)
        self.name = self._reader.path.name
        self.file_rate = self._reader.sample_rate
        self.sample_rate = min(max(self.file_rate, LOWEST_RATE), HIGHEST_RATE)
        self._mixed = ChannelMap(self._reader.channels, mono, 1)
        self.channels = self._mixed.count
        self.seconds = self._reader.count() / self.file_rate
        if wrong := self._wrong():
            self._reader.close()
            raise InvalidInput(f"{self.name} {wrong}")

    def _wrong(self) -> str | None:
        """Reason that the recording cannot be compared; `None` if it can."""
        if self.seconds < MIN_SECONDS:
            return f"is {self.seconds:.2f} s of audio; {MIN_SECONDS} s at least can be compared"
        if self.channels > MOST_CHANNELS:
            return f"has {self.channels} channels, and {MOST_CHANNELS} can be compared; mix them to one"
        return None

    @property
    def remarks(self) -> list[str]:
        """Changes to the audio before it is compared, in words."""
        changed = self.file_rate != self.sample_rate
        resampled = [f"resampled from {self.file_rate} to {self.sample_rate} Hz"] if changed else []
        return [f"{self.name}: {remark}" for remark in (*resampled, *self._mixed.remarks)]

    def pieces(self) -> Iterator[Pcm]:
        """`(channels, samples)` of a second or so, once."""
        resampler = Resampler(self.file_rate, self.sample_rate, self.channels)
        with self._reader as reader:
            for block in reader.blocks(max(1, int(PIECE_SECONDS * self.file_rate))):
                yield resampler.push(self._mixed(block))
        yield resampler.finish()


@dataclass(frozen=True)
class Rendition:
    """Version of a recording: its original audio, or what one system made of it, with scores.

    Attributes:
        pcm: Float32, of the rate, channels and length of the original.
        gain_db: That makes it as loud as the original, and lets neither clip.
        kbps: `None` for the original itself, like all that follows.
        scores: As `evaluate.Result` has them; NaN for what was not or could not be judged.
        encode_factor, decode_factor: Seconds of work a second of audio.
        books: How each codebook was used.
    """

    name: str
    pcm: Pcm
    gain_db: float = 0.0
    kbps: float | None = None
    scores: dict[str, float] | None = None
    encode_factor: float | None = None
    decode_factor: float | None = None
    tokens: CodecTokens | None = None
    books: tuple[Codebook, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A recording with what became of it; the original is the first version."""

    name: str
    sample_rate: int
    versions: tuple[Rendition, ...]

    @property
    def original(self) -> Rendition:
        return self.versions[0]

    @property
    def channels(self) -> int:
        return int(self.original.pcm.shape[0])

    @property
    def seconds(self) -> float:
        return float(self.original.pcm.shape[1] / self.sample_rate)

    @cached_property
    def levels(self) -> list[png.Decibels]:
        """The spectrogram of each version; see `png.mel_levels`."""
        return [png.mel_levels(version.pcm, self.sample_rate) for version in self.versions]

    @property
    def loudest(self) -> float:
        """Loudest level of the original in dB, against which the levels of all versions are shown."""
        return float(self.levels[0].max())


OnAudio = Callable[[int, Pcm], object]
"""Told of each piece of audio as soon as it is there: the number of the version, 0 for the original, and the piece."""


def compare(
    excerpt: Clip,
    systems: Sequence[System],
    judge: Scorer | None = None,
    *,
    heard: OnAudio = lambda _number, _pcm: None,
    ended: Callable[[], object] = lambda: None,
) -> Comparison:
    """A recording through systems, all of them piece by piece side by side.

    Args:
        ended: Told when all has been heard, and only judging is left.
    """
    judge = judge or Scorer()
    trips = [system.trip(excerpt.sample_rate, excerpt.channels) for system in systems]
    made: list[list[Pcm]] = [[] for _ in (ORIGINAL, *systems)]

    def keep(number: int, pcm: Pcm) -> None:
        if pcm.shape[1]:
            made[number].append(pcm)
            heard(number, pcm)

    for piece in excerpt.pieces():
        cancellation.check()
        keep(0, piece)
        for number, trip in enumerate(trips, 1):
            keep(number, trip.push(piece))
    for number, trip in enumerate(trips, 1):
        keep(number, trip.finish())
    ended()
    original, *decoded = (joined(pieces) for pieces in made)
    levels = gains([original, *decoded], excerpt.sample_rate)
    versions = [Rendition(ORIGINAL, original, levels[0])]
    for system, trip, pcm, gain in zip(systems, trips, decoded, levels[1:], strict=True):
        cancellation.check()
        versions.append(judged(system, trip, original, pcm, gain, judge))
    return Comparison(excerpt.name, excerpt.sample_rate, tuple(versions))


def joined(pieces: list[Pcm]) -> Pcm:
    """On end; the pieces are forgotten."""
    whole = np.concatenate(pieces, axis=1)
    pieces.clear()
    return whole


def judged(system: System, trip: AlignedRoundtrip, original: Pcm, decoded: Pcm, gain_db: float, judge: Scorer) -> Rendition:
    """Score a roundtrip that has ended, and return its version of the recording."""
    tokens = trip.tokens
    return Rendition(
        name=system.name,
        pcm=decoded,
        gain_db=gain_db,
        kbps=trip.roundtrip.bits / trip.seconds / 1000,
        scores=judge(original, decoded, trip.sample_rate),
        encode_factor=trip.roundtrip.encode_seconds / trip.seconds,
        decode_factor=trip.roundtrip.decode_seconds / trip.seconds,
        tokens=tokens,
        books=codebooks(counts(tokens)) if tokens else (),
    )


def gains(versions: Sequence[Pcm], sample_rate: int) -> list[float]:
    """Gains in dB that bring signals to the loudness of the first, all lowered alike where one would clip."""
    meters = [loudness.measure([pcm], sample_rate, pcm.shape[0]) for pcm in versions]
    levels = [meter.finish() for meter in meters]
    wanted = [_towards(levels[0], level) for level in levels]
    peaks = [20 * math.log10(max(meter.peaks.max(), 1e-9)) + gain for meter, gain in zip(meters, wanted, strict=True)]
    over = max(0.0, *peaks)
    return [gain - over for gain in wanted]


def _towards(target: float, level: float) -> float:
    if loudness.QUIETEST in (target, level):  # there is nothing to match
        return 0.0
    return min(max(target - level, -MOST_GAIN_DB), MOST_GAIN_DB)
