"""Comparisons as plain data: what the report shows, and what `--json` prints."""

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
"""What is said of a version in numbers, in the order of the columns."""


def numbers(version: Rendition) -> dict[str, float | None]:
    """The `METRICS` of a version; what could not be judged is `None`."""
    known = {
        "kbps": version.kbps,
        **(version.scores or {}),
        "encode_factor": version.encode_factor,
        "decode_factor": version.decode_factor,
    }
    return evaluate.without_nan({name: known.get(name) for name in METRICS})


def books(version: Rendition) -> list[dict[str, float]]:
    """Use of each codebook: the share of its entries, the entropy and the bits of an index."""
    return [{"used": book.used, "entropy": book.entropy, "bits": book.bits} for book in version.books]


def facts(compared: Comparison) -> dict[str, Any]:
    """A comparison in numbers."""
    return {
        **heading(compared),
        "systems": [
            {"system": version.name, "gain_db": version.gain_db, **numbers(version), "codebooks": books(version)}
            for version in compared.versions[1:]
        ],
    }


def means(all_facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of each system's scores over all recordings, weighted by their length, without those that could not be judged."""
    rows = []
    for number, system in enumerate(all_facts[0]["systems"]):
        row: dict[str, Any] = {"system": system["system"]}
        for name in METRICS:
            values = ((fact["systems"][number][name], fact["seconds"]) for fact in all_facts)
            row[name] = evaluate.weighted((math.nan if v is None else v, weight) for v, weight in values)
        rows.append(evaluate.without_nan(row))
    return rows


def summary(all_facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All of them in numbers."""
    return {"systems": means(all_facts), "recordings": list(all_facts)}


def heading(recording: Clip | Comparison) -> dict[str, Any]:
    """Name, length, sample rate and channels of a recording."""
    return {
        "name": recording.name,
        "seconds": recording.seconds,
        "sample_rate": recording.sample_rate,
        "channels": recording.channels,
    }


def shown(compared: Comparison, *, audio: bool = True) -> dict[str, Any]:
    """A comparison as the page takes it: numbers, pictures, and, if `audio`, the sound as FLAC; bytes in base64."""
    original, loudest = compared.levels[0], compared.loudest
    versions = []
    for version, level in zip(compared.versions, compared.levels, strict=True):
        entry = {
            "name": version.name,
            "gain_db": version.gain_db,
            "numbers": None if version.kbps is None else numbers(version),
            "spectrogram": encoded(png.level_image(level, loudest)),
            "difference": None,
            "tokens": _tokens(version, compared.seconds),
        }
        if version.kbps is not None:
            entry["difference"] = encoded(png.difference_image(png.difference(original, level, loudest)))
        if audio:
            entry["audio"] = encoded(flac(version.pcm, compared.sample_rate))
        versions.append(entry)
    return {**heading(compared), "ticks": png.mel_ticks(compared.sample_rate), "versions": versions}


def _tokens(version: Rendition, seconds: float) -> dict[str, Any] | None:
    tokens = version.tokens
    if tokens is None:
        return None
    covered = tokens.frames * tokens.hop_length / tokens.sample_rate if tokens.segment is None else seconds
    return {
        "image": encoded(png.token_image(tokens)),
        "span": covered / seconds,
        "streams": tokens.streams,
        "size": tokens.codebook_size,
        "rates": [tokens.sample_rate / tokens.hop_length / stride for stride in tokens.strides],
        "books": books(version),
    }


def scales() -> dict[str, Any]:
    """The colours of the pictures."""
    named = {"level": png.LEVEL, "difference": png.DIFFERENCE}
    return {
        name: {"low": scale.low, "high": scale.high, "unit": scale.unit, "colours": scale.swatches()}
        for name, scale in named.items()
    }


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def flac(pcm: Pcm, sample_rate: int) -> bytes:
    """16 bits a sample; what is outside -1 … 1 is clipped."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(pcm, -1, 1).T, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
