"""Opus, to compare codecs with: what libopus makes of a signal, through ffmpeg or opus-tools."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import audio
from ..errors import CorruptFile, EngineNotAvailable, InferenceError
from ..validation import Pcm

LOWEST, HIGHEST = 6.0, 256.0
"""Kilobits a second a channel that libopus can be asked for."""
HEADERS = 2
"""Packets before the first of audio."""


@dataclass(frozen=True)
class OpusResult:
    """Audio that came back from Opus, with its sizes and the time it took.

    Attributes:
        pcm: Float32 `(channels, samples)`, of the length and rate of what went in.
        bits: Of all packets of audio, without the container.
        file_bits: With it.
        encode_seconds, decode_seconds: That its programs took, their start and their files included.
    """

    pcm: Pcm
    bits: int
    file_bits: int
    encode_seconds: float
    decode_seconds: float


def nearest_bitrate(kbps: float, channels: int = 1) -> float:
    """The bitrate nearest to `kbps` that Opus has, in kbps."""
    return float(np.clip(kbps, LOWEST, HIGHEST * channels))


def check_available() -> None:
    """Raises `EngineNotAvailable` where neither program is found."""
    _commands(Path(), Path(), Path(), 0, 0)


def roundtrip(pcm: Pcm, sample_rate: int, kbps: float) -> OpusResult:
    """A signal through Opus at a bitrate, in kbps, that is aimed at.

    Raises:
        EngineNotAvailable: Neither ffmpeg with libopus nor opusenc and opusdec are found.
        InferenceError: The program failed; the message is its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = (Path(folder) / name for name in ("in.wav", "coded.opus", "out.wav"))
        audio.write(source, pcm, sample_rate)
        seconds = []
        for command in _commands(source, coded, back, kbps, sample_rate):
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
            if done.returncode:
                raise InferenceError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
            seconds.append(time.perf_counter() - started)
        content = coded.read_bytes()
        decoded, rate = audio.read(back)
    decoded = audio.resample(decoded, rate, sample_rate)[:, : pcm.shape[1]]
    decoded = np.pad(decoded, ((0, 0), (0, pcm.shape[1] - decoded.shape[1])))
    return OpusResult(decoded, 8 * sum(packet_sizes(content)[HEADERS:]), 8 * len(content), *seconds)


def _commands(source: Path, coded: Path, back: Path, kbps: float, sample_rate: int) -> list[list[str]]:
    """Command lines that encode and that decode, in this order."""
    if ffmpeg := shutil.which("ffmpeg"):
        quiet = [ffmpeg, "-v", "error", "-y", "-i"]
        return [
            [*quiet, str(source), "-c:a", "libopus", "-b:a", f"{kbps * 1000:.0f}", str(coded)],
            [*quiet, str(coded), "-ar", str(sample_rate), "-c:a", "pcm_f32le", str(back)],
        ]
    if (encoder := shutil.which("opusenc")) and (decoder := shutil.which("opusdec")):
        return [
            [encoder, "--quiet", "--bitrate", str(kbps), str(source), str(coded)],
            [decoder, "--quiet", "--float", "--rate", str(sample_rate), str(coded), str(back)],
        ]
    raise EngineNotAvailable("comparing with Opus needs ffmpeg (with libopus), or opusenc and opusdec, on the PATH")


def packet_sizes(content: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file (RFC 3533, section 6).

    Pages list the sizes of their segments. A packet ends with the first segment of less than 255 bytes.

    Raises:
        CorruptFile: There is no page where one has to begin.
    """
    at, sizes, size = 0, [], 0
    while at < len(content):
        if content[at : at + 4] != b"OggS" or len(content) < at + 27:
            raise CorruptFile(f"no Ogg page begins at byte {at}")
        segments = content[at + 27 : at + 27 + content[at + 26]]
        for segment in segments:
            size += segment
            if segment < 255:
                sizes.append(size)
                size = 0
        at += 27 + len(segments) + sum(segments)
    return sizes
