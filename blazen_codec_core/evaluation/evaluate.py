"""Evaluation of codecs on recordings: quality, bitrate, use of codebooks, speed; also of Opus, to compare with."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import audio
from ..errors import InvalidInput
from ..files import existing, walk
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from ..transcode import Recording
from ..validation import Pcm
from . import metrics, opus

PIECE_SECONDS = 30.0
"""Of a recording that is judged at a time, so that memory does not grow with its length."""
SHORTEST_SECONDS = 0.1
METRICS: dict[str, Callable[[Pcm, Pcm, int], float]] = {
    "si_sdr_db": lambda original, decoded, _: metrics.si_sdr(original, decoded),
    "log_mel_distance": metrics.log_mel_distance,
    "stoi": metrics.stoi,
    "pesq": metrics.pesq,
}
QUALITIES = tuple(METRICS)


@dataclass(frozen=True)
class Result:
    """Scores, bitrate and speed of one system on one recording.

    Attributes:
        seconds: Of audio.
        kbps: Of the tokens; of Opus the packets without the container, and with it `file_kbps`.
        si_sdr_db, log_mel_distance, stoi, pesq: Means over pieces of 30 s weighted by their length; NaN where none can be judged.
        encode_speed, decode_speed: Seconds of audio a second of work.
    """

    recording: str
    seconds: float
    kbps: float
    si_sdr_db: float
    log_mel_distance: float
    stoi: float
    pesq: float
    encode_speed: float
    decode_speed: float
    file_kbps: float | None = None


@dataclass(frozen=True)
class Codebook:
    """Use of the entries of a codebook, over all recordings."""

    used: float
    """The share of its entries that were, 0 to 1."""
    entropy: float
    """Of the choice, in bits."""
    bits: float
    """That an index takes."""


@dataclass(frozen=True)
class Report:
    """One system over all recordings."""

    system: str
    results: tuple[Result, ...]
    codebooks: tuple[Codebook, ...] = ()

    def mean(self, quality: str) -> float:
        """Mean of a field of `Result`, weighted by the recordings' length, without those that could not be judged."""
        pairs = [(getattr(result, quality), result.seconds) for result in self.results]
        return weighted((float("nan") if value is None else value, weight) for value, weight in pairs)


def weighted(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of values with their weights, without those that are NaN."""
    known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else float("nan")


def without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON: what could not be judged is `None`."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def counts(tokens: CodecTokens) -> list[NDArray[np.int64]]:
    """Counts of the choices of each entry of each codebook, over all streams."""
    return [np.bincount(codes.reshape(-1), minlength=tokens.codebook_size) for codes in tokens.codes]


def codebooks(counted: Iterable[NDArray[np.int64]]) -> tuple[Codebook, ...]:
    """Use of each codebook, computed from `counts`."""
    return tuple(Codebook(*metrics.usage(count), math.log2(len(count))) for count in counted)


def recordings(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """The audio files at some paths, those in folders and below included, in order.

    Raises:
        InvalidInput: There is nothing there.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(existing(path))
        elif inside := [path / name for name in walk(path) if audio.is_audio(path / name)]:
            found += inside
        else:
            raise InvalidInput(f"there is no audio in {path} that can be read; m4a, webm and the like need the extra av")
    if not found:
        raise InvalidInput("name an audio file, or a folder with some")
    return found


@dataclass(frozen=True)
class Scorer:
    """Compares recordings with what became of them. Metrics whose package is missing fail before the work, not after."""

    names: Sequence[str] = QUALITIES

    def check_available(self) -> None:
        """Raises `EngineNotAvailable` where a metric's package is missing."""
        noise = np.random.default_rng(0).standard_normal((1, metrics.PESQ_RATE), np.float32)
        for name in self.names:
            METRICS[name](noise, noise, metrics.PESQ_RATE)

    def __call__(self, original: Pcm, decoded: Pcm, sample_rate: int) -> dict[str, float]:
        pieces = list(in_pieces(original.shape[1], int(PIECE_SECONDS * sample_rate)))
        scores: dict[str, float] = {}
        for name in QUALITIES:
            measure = METRICS[name]
            scores[name] = (
                weighted((measure(original[:, at], decoded[:, at], sample_rate), at.stop - at.start) for at in pieces)
                if name in self.names
                else float("nan")
            )
        return scores


def in_pieces(samples: int, length: int) -> Iterator[slice]:
    """Cuts of about equal length, each at most `length`."""
    count = max(1, -(-samples // length))
    edges = [samples * number // count for number in range(count + 1)]
    yield from (slice(*pair) for pair in itertools.pairwise(edges))


def read(path: Path, codec: DynCodecProvider, mono: bool = False) -> Pcm:
    """A recording as a codec takes it: at its rate, mixed to one channel if asked to, one channel copied to as many as it has.

    Raises:
        InvalidInput: It has another number of channels, or is too short to be judged.
    """
    pcm = Recording.at(path, codec, mono).whole()
    seconds = pcm.shape[1] / codec.sample_rate
    if seconds < SHORTEST_SECONDS:
        raise InvalidInput(f"{path} is {seconds:.2f} s of audio; {SHORTEST_SECONDS} s at least can be judged")
    return pcm


def evaluate(
    codec: DynCodecProvider,
    paths: Iterable[Path],
    judge: Scorer | None = None,
    *,
    mono: bool = False,
    bandwidth: float | None = None,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """A codec over recordings, which are resampled to its rate.

    Args:
        mono: Their channels are mixed to one first.
        bandwidth: In kbps, where the codec has a choice.
        done: Called after each recording.
    """
    judge, results = judge or Scorer(), []
    codec.load()
    codec.decode(codec.encode(np.zeros((codec.channels, codec.sample_rate), np.float32), codec.sample_rate))  # warms it up
    counted: list[NDArray[np.int64]] = []
    for path in paths:
        pcm = read(path, codec, mono)
        started = time.perf_counter()
        tokens = codec.encode(pcm, codec.sample_rate, bandwidth=bandwidth)
        encoded = time.perf_counter()
        decoded = codec.decode(tokens)
        finished = time.perf_counter()
        own = counts(tokens)
        counted = [before + more for before, more in zip(counted, own, strict=True)] if counted else own
        results.append(
            Result(
                recording=str(path),
                seconds=tokens.seconds,
                kbps=tokens.bits / tokens.seconds / 1000,
                encode_speed=tokens.seconds / (encoded - started),
                decode_speed=tokens.seconds / (finished - encoded),
                **judge(pcm, decoded, codec.sample_rate),
            )
        )
        done()
    name = codec.spec.name if bandwidth is None else f"{codec.spec.name}@{bandwidth:g}"
    return Report(name, tuple(results), codebooks(counted))


def evaluate_opus(
    codec: DynCodecProvider,
    of_codec: Report,
    judge: Scorer | None = None,
    *,
    mono: bool = False,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """Opus over the very signals that a codec was given, each at the bitrate nearest to the codec's that Opus has."""
    judge, results = judge or Scorer(), []
    for result in of_codec.results:
        pcm = read(Path(result.recording), codec, mono)
        seconds = pcm.shape[1] / codec.sample_rate
        coded = opus.roundtrip(pcm, codec.sample_rate, opus.nearest_bitrate(result.kbps, pcm.shape[0]))
        results.append(
            Result(
                recording=result.recording,
                seconds=seconds,
                kbps=coded.bits / seconds / 1000,
                file_kbps=coded.file_bits / seconds / 1000,
                encode_speed=seconds / coded.encode_seconds,
                decode_speed=seconds / coded.decode_seconds,
                **judge(pcm, coded.pcm, codec.sample_rate),
            )
        )
        done()
    return Report(f"opus for {of_codec.system}", tuple(results))
