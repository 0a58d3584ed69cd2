"""How good a codec is on recordings: quality, bitrate, use of its codebooks, speed; also of Opus, to compare with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import audio, metrics, opus
from .checks import Pcm
from .errors import InvalidInput
from .files import existing
from .provider import DynCodecProvider

PIECE_SECONDS = 30.0
"""Of a recording that is judged at a time, so that memory does not grow with its length."""
SHORTEST_SECONDS = 0.1
QUALITIES = ("si_sdr_db", "log_mel_distance", "stoi", "pesq")


@dataclass(frozen=True)
class Result:
    """What one system made of one recording.

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
    """How often the entries of a codebook were chosen, over all recordings."""

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
        """Of a field of `Result`, weighted by the recordings' length, without those that could not be judged."""
        pairs = [(getattr(result, quality), result.seconds) for result in self.results]
        return weighted((float("nan") if value is None else value, weight) for value, weight in pairs)


def weighted(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of values with their weights, without those that are NaN."""
    known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else float("nan")


def recordings(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """The audio files at some paths, those in folders and below included, in order.

    Raises:
        InvalidInput: There is nothing there.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(existing(path))
        elif inside := sorted(file for file in path.rglob("*") if file.suffix.lower() in audio.SUFFIXES and file.is_file()):
            found += inside
        else:
            raise InvalidInput(f"there is no audio in {path}: files named {', '.join(sorted(audio.SUFFIXES))} are looked for")
    if not found:
        raise InvalidInput("name an audio file, or a folder with some")
    return found


@dataclass
class Judge:
    """Compares recordings with what became of them. Metrics whose package is missing fail before the work, not after."""

    names: Sequence[str] = QUALITIES
    _measures: dict[str, Callable[[Pcm, Pcm, int], float]] = field(
        default_factory=lambda: {
            "si_sdr_db": lambda a, b, _: metrics.si_sdr(a, b),
            "log_mel_distance": metrics.log_mel_distance,
            "stoi": metrics.stoi,
            "pesq": metrics.pesq,
        }
    )

    def check_available(self) -> None:
        """Raises `EngineNotAvailable` where a metric's package is missing."""
        silence = np.zeros((1, 1600), np.float32)
        for name in self.names:
            self._measures[name](silence, silence, metrics.PESQ_RATE)

    def __call__(self, original: Pcm, decoded: Pcm, sample_rate: int) -> dict[str, float]:
        pieces = list(in_pieces(original.shape[1], int(PIECE_SECONDS * sample_rate)))
        scores: dict[str, float] = {}
        for name in QUALITIES:
            measure = self._measures[name]
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
    yield from (slice(*pair) for pair in zip(edges, edges[1:], strict=False))


def read(path: Path, codec: DynCodecProvider) -> Pcm:
    """A recording as a codec takes it: at its rate, a single channel copied to as many as the codec has.

    Raises:
        InvalidInput: It has another number of channels, or is too short to be judged.
    """
    pcm, rate = audio.read(path)
    if pcm.shape[1] < SHORTEST_SECONDS * rate:
        raise InvalidInput(f"{path} is {pcm.shape[1] / rate:.2f} s of audio; {SHORTEST_SECONDS} s at least can be judged")
    pcm = audio.resample(pcm, rate, codec.sample_rate)
    if codec.channels > 1 and pcm.shape[0] == 1:
        pcm = np.repeat(pcm, codec.channels, axis=0)
    return pcm


def evaluate(
    codec: DynCodecProvider,
    paths: Iterable[Path],
    judge: Judge | None = None,
    *,
    bandwidth: float | None = None,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """A codec over recordings, which are resampled to its rate.

    Args:
        bandwidth: In kbps, where the codec has a choice.
        done: Called after each recording.
    """
    judge, results = judge or Judge(), []
    codec.load()
    codec.decode(codec.encode(np.zeros((codec.channels, codec.sample_rate), np.float32), codec.sample_rate))  # warms it up
    counts: list[NDArray[np.int64]] = []
    for path in paths:
        pcm = read(path, codec)
        started = time.perf_counter()
        tokens = codec.encode(pcm, codec.sample_rate, bandwidth=bandwidth)
        encoded = time.perf_counter()
        decoded = codec.decode(tokens)
        finished = time.perf_counter()
        counts = counts or [np.zeros(codec.spec.codebook_size, np.int64) for _ in tokens.codes]
        for count, codes in zip(counts, tokens.codes, strict=True):
            count += np.bincount(codes.reshape(-1).astype(np.int64), minlength=len(count))
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
    bits = math.log2(codec.spec.codebook_size)
    books = tuple(Codebook(*metrics.usage(count), bits) for count in counts)
    name = codec.spec.name if bandwidth is None else f"{codec.spec.name}@{bandwidth:g}"
    return Report(name, tuple(results), books)


def evaluate_opus(
    codec: DynCodecProvider,
    paths: Iterable[Path],
    judge: Judge | None = None,
    *,
    kbps: float,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """Opus at `kbps` over the very signals that a codec is given, at the codec's rate."""
    judge, results = judge or Judge(), []
    for path in paths:
        pcm = read(path, codec)
        started = time.perf_counter()
        coded = opus.roundtrip(pcm, codec.sample_rate, kbps)
        speed = pcm.shape[1] / codec.sample_rate / (time.perf_counter() - started)
        seconds = pcm.shape[1] / codec.sample_rate
        results.append(
            Result(
                recording=str(path),
                seconds=seconds,
                kbps=coded.bits / seconds / 1000,
                file_kbps=coded.file_bits / seconds / 1000,
                encode_speed=speed,
                decode_speed=speed,
                **judge(pcm, coded.pcm, codec.sample_rate),
            )
        )
        done()
    return Report(f"opus@{kbps:g}", tuple(results))
