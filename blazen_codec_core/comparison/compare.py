"""Comparison of systems on a recording: decoded audio, scores, and gains that match the loudness of the original."""

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
from ..evaluation.evaluate import MIN_SECONDS, Codebook, Scorer, codebook_usage, count_entries
from ..forks import cached_property
from ..tokens.tokens import CodecTokens
from ..transcode import ChannelMap
from ..validation import Pcm
from .aligned_roundtrip import AlignedRoundtrip
from .render import png
from .systems import System

MIN_RATE, MAX_RATE = 8000, 48_000
"""Sample rates in hertz that browsers play and codecs know; other recordings are resampled to the nearest."""
MAX_CHANNELS = 2
CHUNK_SECONDS = 1.0
ORIGINAL = "original"
MAX_GAIN_DB = 20.0
"""Largest change of level, up or down, that brings decoded audio to the loudness of the original."""


class Clip:
    """A recording, or the beginning of it, prepared for a comparison.

    Args:
        path: Path of the file; with `content`, only its name is used.
        content: The open file.
        seconds: Most seconds that are read from the beginning; all if `None`.
        mono: Mix the channels to one.

    Raises:
        InvalidInput: The file does not exist, is too short, or has more than two channels that are not mixed.
        CorruptFile: The file cannot be read as audio.
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
        self.sample_rate = min(max(self.file_rate, MIN_RATE), MAX_RATE)
        self._channel_map = ChannelMap(self._reader.channels, mono, 1)
        self.channels = self._channel_map.count
        self.seconds = self._reader.count() / self.file_rate
        if problem := self._problem():
            self._reader.close()
            raise InvalidInput(f"{self.name} {problem}")

    def _problem(self) -> str | None:
        """Reason that the recording cannot be compared; `None` if it can."""
        if self.seconds < MIN_SECONDS:
            return f"is {self.seconds:.2f} s of audio; expected at least {MIN_SECONDS} s"
        if self.channels > MAX_CHANNELS:
            return f"has {self.channels} channels; expected at most {MAX_CHANNELS}. Mix them to one"
        return None

    @property
    def remarks(self) -> list[str]:
        """Changes to the audio before it is compared, in words."""
        changed = self.file_rate != self.sample_rate
        resampled = [f"resampled from {self.file_rate} to {self.sample_rate} Hz"] if changed else []
        return [f"{self.name}: {remark}" for remark in (*resampled, *self._channel_map.remarks)]

    def chunks(self) -> Iterator[Pcm]:
        """Yield the audio in chunks `(channels, samples)` of about a second. The file can be read once."""
        resampler = Resampler(self.file_rate, self.sample_rate, self.channels)
        with self._reader as reader:
            for block in reader.blocks(max(1, int(CHUNK_SECONDS * self.file_rate))):
                yield resampler.push(self._channel_map(block))
        yield resampler.finish()


@dataclass(frozen=True)
class Rendition:
    """Version of a recording: the original, or its roundtrip through one system with scores.

    All fields but the first three are empty for the original.

    Attributes:
        name: Name of the system, or `ORIGINAL`.
        pcm: Float32 `(channels, samples)`, with the rate, channels and length of the original.
        gain_db: Gain in dB that matches the loudness of the original and lets no version clip.
        kbps: Bitrate in kilobits a second.
        scores: Fields of `evaluate.Result`; NaN for metrics that were not or could not be computed.
        encode_factor, decode_factor: Real-time factors: seconds of work per second of audio.
        tokens: Tokens of the recording; `None` for Opus.
        codebooks: Use of each codebook.
    """

    name: str
    pcm: Pcm
    gain_db: float = 0.0
    kbps: float | None = None
    scores: dict[str, float] | None = None
    encode_factor: float | None = None
    decode_factor: float | None = None
    tokens: CodecTokens | None = None
    codebooks: tuple[Codebook, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A recording with its versions; the original is the first."""

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
        """Spectrogram of each version, from `png.mel_levels`."""
        return [png.mel_levels(version.pcm, self.sample_rate) for version in self.versions]

    @property
    def loudest(self) -> float:
        """Loudest level of the original in dB, against which the levels of all versions are shown."""
        return float(self.levels[0].max())


OnAudio = Callable[[int, Pcm], object]
"""Callback for each chunk of audio as soon as it is decoded: the number of the version, 0 for the original, and the chunk."""


def compare(
    clip: Clip,
    systems: Sequence[System],
    scorer: Scorer | None = None,
    *,
    on_audio: OnAudio = lambda _number, _pcm: None,
    on_decoded: Callable[[], object] = lambda: None,
) -> Comparison:
    """Run a recording through systems, all of them chunk by chunk side by side.

    Args:
        scorer: Computes the scores; with all metrics if `None`.
        on_audio: Called with each chunk that is not empty.
        on_decoded: Called when all audio is decoded, before it is scored.
    """
    scorer = scorer or Scorer()
    roundtrips = [system.roundtrip(clip.sample_rate, clip.channels) for system in systems]
    chunks: list[list[Pcm]] = [[] for _ in (ORIGINAL, *systems)]

    def add(number: int, pcm: Pcm) -> None:
        if pcm.shape[1]:
            chunks[number].append(pcm)
            on_audio(number, pcm)

    for chunk in clip.chunks():
        cancellation.check()
        add(0, chunk)
        for number, roundtrip in enumerate(roundtrips, 1):
            add(number, roundtrip.push(chunk))
    for number, roundtrip in enumerate(roundtrips, 1):
        add(number, roundtrip.finish())
    on_decoded()
    original, *decoded = (concatenate(parts) for parts in chunks)
    levels = gains([original, *decoded], clip.sample_rate)
    versions = [Rendition(ORIGINAL, original, levels[0])]
    for system, roundtrip, pcm, gain in zip(systems, roundtrips, decoded, levels[1:], strict=True):
        cancellation.check()
        versions.append(score(system, roundtrip, original, pcm, gain, scorer))
    return Comparison(clip.name, clip.sample_rate, tuple(versions))


def concatenate(chunks: list[Pcm]) -> Pcm:
    """Concatenate chunks in time, and clear the list, so that the audio is in memory once."""
    whole = np.concatenate(chunks, axis=1)
    chunks.clear()
    return whole


def score(system: System, roundtrip: AlignedRoundtrip, original: Pcm, decoded: Pcm, gain_db: float, scorer: Scorer) -> Rendition:
    """Score a roundtrip that has ended, and return its version of the recording."""
    tokens, coded = roundtrip.tokens, roundtrip.roundtrip
    return Rendition(
        name=system.name,
        pcm=decoded,
        gain_db=gain_db,
        kbps=coded.bits / roundtrip.seconds / 1000,
        scores=scorer(original, decoded, roundtrip.sample_rate),
        encode_factor=coded.encode_seconds / roundtrip.seconds,
        decode_factor=coded.decode_seconds / roundtrip.seconds,
        tokens=tokens,
        codebooks=codebook_usage(count_entries(tokens)) if tokens is not None else (),
    )


def gains(versions: Sequence[Pcm], sample_rate: int) -> list[float]:
    """Gains in dB that bring signals to the loudness of the first, all lowered alike where one would clip."""
    meters = [loudness.measure([pcm], sample_rate, pcm.shape[0]) for pcm in versions]
    levels = [meter.finish() for meter in meters]
    wanted = [_gain_towards(levels[0], level) for level in levels]
    peaks = [20 * math.log10(max(meter.peaks.max(), 1e-9)) + gain for meter, gain in zip(meters, wanted, strict=True)]
    excess = max(0.0, *peaks)
    return [gain - excess for gain in wanted]


def _gain_towards(target: float, level: float) -> float:
    if loudness.QUIETEST in (target, level):  # silence cannot be matched
        return 0.0
    return min(max(target - level, -MAX_GAIN_DB), MAX_GAIN_DB)
