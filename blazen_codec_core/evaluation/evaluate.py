"""Evaluation of codecs on recordings: quality, bitrate, use of codebooks, speed; also of Opus as a baseline."""

from __future__ import annotations

import itertools
import math
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
from .roundtrip import OfflineCodecRoundtrip, OfflineRoundtrip, OpusRoundtrip, warm_up

CHUNK_SECONDS = 30.0
"""Seconds of a recording that are scored at a time, so that memory does not grow with its length."""
MIN_SECONDS = 0.1
METRICS: dict[str, Callable[[Pcm, Pcm, int], float]] = {
    "si_sdr_db": lambda original, decoded, _: metrics.si_sdr(original, decoded),
    "log_mel_distance": metrics.log_mel_distance,
    "stoi": metrics.stoi,
    "pesq": metrics.pesq,
}
QUALITIES = tuple(METRICS)
RATE_SEPARATOR = "@"
"""Separator of the name of a system and its bitrate in kbps."""


def system_name(name: str, kbps: float | None) -> str:
    """Name of a system at a bitrate, such as `encodec_24khz@6`."""
    return name if kbps is None else f"{name}{RATE_SEPARATOR}{kbps:g}"


@dataclass(frozen=True)
class Result:
    """Scores, bitrate and speed of one system on one recording.

    Attributes:
        recording: Path or name of the recording.
        seconds: Duration of the recording.
        kbps: Bitrate of the tokens, or of Opus packets without their container.
        si_sdr_db, log_mel_distance, stoi, pesq: Means over chunks of 30 s weighted by their length; NaN if none can be scored.
        encode_speed, decode_speed: Seconds of audio per second of work.
        file_kbps: Bitrate of Opus with its container.
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
    """Use of the entries of a codebook, over all recordings.

    Attributes:
        used: Fraction of the entries that occur, 0 to 1.
        entropy: Entropy of the indices in bits.
        bits: Size of an index in bits.
    """

    used: float
    entropy: float
    bits: float


@dataclass(frozen=True)
class Report:
    """Results of one system on all recordings, and its use of codebooks over all of them."""

    system: str
    results: tuple[Result, ...]
    codebooks: tuple[Codebook, ...] = ()

    def mean(self, quality: str) -> float:
        """Mean of a field of `Result`, weighted by the recordings' length, without those that could not be scored."""
        pairs = [(getattr(result, quality), result.seconds) for result in self.results]
        return weighted_mean((float("nan") if value is None else value, weight) for value, weight in pairs)


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """Weighted mean of `(value, weight)` pairs, without values that are NaN; NaN if there are none."""
    known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else float("nan")


def without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by `None`, for JSON."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def count_entries(tokens: CodecTokens) -> list[NDArray[np.int64]]:
    """Count occurrences of each entry of each codebook over all streams; int64 `(codebook_size,)` per codebook."""
    return [np.bincount(codes.reshape(-1), minlength=tokens.codebook_size) for codes in tokens.codes]


def codebook_usage(counts: Iterable[NDArray[np.int64]]) -> tuple[Codebook, ...]:
    """Use of each codebook, from the counts of `count_entries`."""
    return tuple(Codebook(*metrics.usage(count), math.log2(len(count))) for count in counts)


def recordings(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """List the audio files at some paths, with those in folders and below, in order.

    Raises:
        InvalidInput: A path does not exist, or there is no audio.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(existing(path))
        elif inside := [path / name for name in walk(path) if audio.is_audio(path / name)]:
            found += inside
        else:
            raise InvalidInput(f"{path} contains no audio that can be read; m4a, webm and similar formats need the extra av")
    if not found:
        raise InvalidInput("no recordings given; name an audio file, or a folder of them")
    return found


@dataclass(frozen=True)
class Scorer:
    """Scorer of decoded audio against the original, called with both as `(channels, samples)` and their rate in hertz.

    Attributes:
        names: Metrics to compute; the others are NaN.
    """

    names: Sequence[str] = QUALITIES

    def check_available(self) -> None:
        """Raise `EngineNotAvailable` if the package of a metric is missing, before any work is done."""
        noise = np.random.default_rng(0).standard_normal((1, metrics.PESQ_RATE), np.float32)
        for name in self.names:
            METRICS[name](noise, noise, metrics.PESQ_RATE)

    def __call__(self, original: Pcm, decoded: Pcm, sample_rate: int) -> dict[str, float]:
        chunks = list(split_evenly(original.shape[1], int(CHUNK_SECONDS * sample_rate)))
        scores: dict[str, float] = {}
        for name in QUALITIES:
            metric = METRICS[name]
            scores[name] = (
                weighted_mean(
                    (metric(original[:, chunk], decoded[:, chunk], sample_rate), chunk.stop - chunk.start) for chunk in chunks
                )
                if name in self.names
                else float("nan")
            )
        return scores


def split_evenly(samples: int, length: int) -> Iterator[slice]:
    """Split `samples` samples into slices of about equal length, at most `length` each."""
    count = max(1, -(-samples // length))
    edges = [samples * number // count for number in range(count + 1)]
    yield from (slice(*pair) for pair in itertools.pairwise(edges))


def read(path: Path, codec: DynCodecProvider, mono: bool = False) -> Pcm:
    """Read a recording for a codec as `(channels, samples)` at its rate. A single channel is copied to all that the codec has.

    Args:
        mono: Mix the channels to one first.

    Raises:
        InvalidInput: The number of channels does not fit, or the recording is too short to be scored.
        CorruptFile: The file cannot be read as audio.
    """
    pcm = Recording.at(path, codec, mono).whole()
    seconds = pcm.shape[1] / codec.sample_rate
    if seconds < MIN_SECONDS:
        raise InvalidInput(f"{path} is {seconds:.2f} s of audio; expected at least {MIN_SECONDS} s")
    return pcm


def measure(recording: str, pcm: Pcm, roundtrip: OfflineRoundtrip, scorer: Scorer) -> Result:
    """Run a recording `(channels, samples)` through a system, and score the decoded audio."""
    decoded = roundtrip.run(pcm)
    seconds = pcm.shape[1] / roundtrip.sample_rate
    return Result(
        recording=recording,
        seconds=seconds,
        kbps=roundtrip.bits / seconds / 1000,
        file_kbps=None if roundtrip.file_bits is None else roundtrip.file_bits / seconds / 1000,
        encode_speed=seconds / roundtrip.encode_seconds,
        decode_speed=seconds / roundtrip.decode_seconds,
        **scorer(pcm, decoded, roundtrip.sample_rate),
    )


def evaluate(
    codec: DynCodecProvider,
    paths: Iterable[Path],
    scorer: Scorer | None = None,
    *,
    mono: bool = False,
    bandwidth: float | None = None,
    name: str | None = None,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """Evaluate a codec on recordings, which are resampled to its rate.

    Args:
        paths: Audio files.
        scorer: Computes the scores; with all metrics if `None`.
        mono: Mix the channels of recordings to one first.
        bandwidth: Bandwidth in kbps, if the codec has several.
        name: Name in the report; that of the model by default.
        done: Called after each recording.

    Raises:
        InvalidInput: The bandwidth does not exist, or as for `read`.
        EngineNotAvailable: The package of a metric is missing.
        NotYetImplemented: The codec is continuous.
        CodecError: The model could not be loaded or run.
    """
    codec.spec.check_has_tokens()
    scorer, results = scorer or Scorer(), []
    warm_up(codec, bandwidth)
    counts: list[NDArray[np.int64]] = []
    for path in paths:
        pcm = read(path, codec, mono)
        roundtrip = OfflineCodecRoundtrip(codec, pcm.shape[0], bandwidth)
        results.append(measure(str(path), pcm, roundtrip, scorer))
        assert roundtrip.tokens is not None
        new = count_entries(roundtrip.tokens)
        counts = [total + count for total, count in zip(counts, new, strict=True)] if counts else new
        done()
    return Report(system_name(name or codec.spec.name, bandwidth), tuple(results), codebook_usage(counts))


def evaluate_opus(
    codec: DynCodecProvider,
    of_codec: Report,
    scorer: Scorer | None = None,
    *,
    mono: bool = False,
    done: Callable[[], object] = lambda: None,
) -> Report:
    """Evaluate Opus on the same signals as a codec, each at the bitrate of Opus nearest to the codec's.

    Args:
        of_codec: Report of the codec.
        scorer, mono, done: As for `evaluate`.

    Raises:
        EngineNotAvailable: No program for Opus is installed, or the package of a metric is missing.
        InferenceError: The program for Opus failed.
    """
    scorer, results = scorer or Scorer(), []
    for result in of_codec.results:
        pcm = read(Path(result.recording), codec, mono)
        kbps = opus.nearest_bitrate(result.kbps, pcm.shape[0])
        results.append(measure(result.recording, pcm, OpusRoundtrip(codec.sample_rate, pcm.shape[0], kbps), scorer))
        done()
    return Report(f"opus for {of_codec.system}", tuple(results))
