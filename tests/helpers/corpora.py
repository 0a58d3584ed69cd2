"""Recordings of several kinds, for datasets."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from blazen_codec_core.conformance.signals import voice

KINDS = (
    (0.05, 16_000, 1, "wav"),
    (1.2, 44_100, 2, "flac"),
    (0.7, 24_000, 1, "ogg"),
    (3.1, 8_000, 1, "wav"),
    (0.4, 48_000, 1, "mp3"),
)
"""Seconds, sample rate, channels, suffix."""


def sound(seconds: float, rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """`(samples, channels)`."""
    made = [voice(max(seconds, 0.1), rate, seed + channel)[: int(seconds * rate)] for channel in range(channels)]
    return np.stack(made, axis=1)


def corpus(folder: Path, count: int, broken: int = 0, *, alike: bool = True) -> Path:
    """So many recordings of several kinds in a tree of folders, the first of them broken; of as many lengths if not alike."""
    for number in range(count):
        seconds, rate, channels, suffix = KINDS[number % len(KINDS)]
        seconds *= 1 if alike else 1 + number * 0.618 % 1
        path = folder / f"speaker{number % 3}" / f"{number:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < broken:
            path.write_bytes(b"RIFF, but not really")
        else:
            soundfile.write(path, sound(seconds, rate, channels, number), rate)
    return folder


def tar_of(folder: Path, path: Path) -> Path:
    """The files of a folder in a tar, as WebDataset has them: a text beside each."""
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.*")):
            tar.add(file, file.relative_to(folder).as_posix())
            text = json.dumps({"text": "hello"}).encode()
            member = tarfile.TarInfo(file.with_suffix(".json").relative_to(folder).as_posix())
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return path
