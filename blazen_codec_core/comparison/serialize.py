"""Serialization of comparisons to plain data, for the report and for `--json`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile

from ..evaluation import evaluate
from ..validation import Pcm
from .compare import Clip, Comparison, Rendition
from .render import png

METRICS: dict[str, dict[str, Any]] = {
    "kbps": {"label": "kbps", "better": "low", "digits": 2},
    "si_sdr_db": {"label": "SI-SDR, dB", "better": "high", "digits": 2},
    "log_mel_distance": {"label": "log-mel dist.", "better": "low", "digits": 3},
    "stoi": {"label": "STOI", "better": "high", "digits": 3},
    "pesq": {"label": "PESQ", "better": "high", "digits": 2},
    "encode_factor": {"label": "encoding, RTF", "better": "low", "digits": 4},
    "decode_factor": {"label": "decoding, RTF", "better": "low", "digits": 4},
}
"""Measures of a version, in the order of the columns."""


def numbers(version: Rendition) -> dict[str, float | None]:
    """Values of the `METRICS` of a version; `None` for those that could not be computed."""
    values = {
        "kbps": version.kbps,
        **(version.scores or {}),
        "encode_factor": version.encode_factor,
        "decode_factor": version.decode_factor,
    }
    return evaluate.without_nan({name: values.get(name) for name in METRICS})


def codebooks(version: Rendition) -> list[dict[str, float]]:
    """Use of each codebook: fraction of the entries that occur, entropy of the indices in bits, size of an index in bits."""
    return [{"used": book.used, "entropy": book.entropy, "bits": book.bits} for book in version.codebooks]


def facts(comparison: Comparison) -> dict[str, Any]:
    """Numbers of a comparison, for `--json`."""
    return {
        **heading(comparison),
        "systems": [
            {"system": version.name, "gain_db": version.gain_db, **numbers(version), "codebooks": codebooks(version)}
            for version in comparison.versions[1:]
        ],
    }


def means(all_facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of each system's measures over all recordings, weighted by their length, without those that could not be computed."""
    rows = []
    for number, system in enumerate(all_facts[0]["systems"]):
        row: dict[str, Any] = {"system": system["system"]}
        for name in METRICS:
            values = ((fact["systems"][number][name], fact["seconds"]) for fact in all_facts)
            row[name] = evaluate.weighted_mean((math.nan if v is None else v, weight) for v, weight in values)
        rows.append(evaluate.without_nan(row))
    return rows


def summary(all_facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of several comparisons, and their means, for `--json`."""
    return {"systems": means(all_facts), "recordings": list(all_facts)}


def heading(recording: Clip | Comparison) -> dict[str, Any]:
    """Name, length, sample rate and channels of a recording."""
    return {
        "name": recording.name,
        "seconds": recording.seconds,
        "sample_rate": recording.sample_rate,
        "channels": recording.channels,
    }


def page_data(comparison: Comparison, *, audio: bool = True) -> dict[str, Any]:
    """Data of a comparison for the page: numbers and PNG images, with bytes in base64.

    Args:
        audio: Include the audio of all versions as FLAC.
    """
    original, loudest = comparison.levels[0], comparison.loudest
    versions = []
    for version, level in zip(comparison.versions, comparison.levels, strict=True):
        entry = {
            "name": version.name,
            "gain_db": version.gain_db,
            "numbers": None if version.kbps is None else numbers(version),
            "spectrogram": to_base64(png.level_image(level, loudest)),
            "difference": None,
            "tokens": _tokens(version, comparison.seconds),
        }
        if version.kbps is not None:
            entry["difference"] = to_base64(png.difference_image(png.difference(original, level, loudest)))
        if audio:
            entry["audio"] = to_base64(to_flac(version.pcm, comparison.sample_rate))
        versions.append(entry)
    return {**heading(comparison), "ticks": png.mel_ticks(comparison.sample_rate), "versions": versions}


def _tokens(version: Rendition, seconds: float) -> dict[str, Any] | None:
    tokens = version.tokens
    if tokens is None:
        return None
    covered = tokens.frames * tokens.hop_length / tokens.sample_rate if tokens.segment is None else seconds
    return {
        "image": to_base64(png.token_image(tokens)),
        "span": covered / seconds,
        "streams": tokens.streams,
        "size": tokens.codebook_size,
        "rates": [tokens.sample_rate / tokens.hop_length / stride for stride in tokens.strides],
        "books": codebooks(version),
    }


def scales() -> dict[str, Any]:
    """Colour scales of the images."""
    named = {"level": png.LEVEL, "difference": png.DIFFERENCE}
    return {
        name: {"low": scale.low, "high": scale.high, "unit": scale.unit, "colours": scale.swatches()}
        for name, scale in named.items()
    }


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def to_flac(pcm: Pcm, sample_rate: int) -> bytes:
    """Encode audio `(channels, samples)`, clipped to -1 … 1, as FLAC with 16 bits per sample."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(pcm, -1, 1).T, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
