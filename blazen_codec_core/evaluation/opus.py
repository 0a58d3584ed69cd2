"""Opus as a baseline: roundtrips through libopus, by ffmpeg or opus-tools."""

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

MIN_KBPS, MAX_KBPS = 6.0, 256.0
"""Bitrates in kilobits a second and channel that libopus supports."""
HEADER_PACKETS = 2
"""Packets before the first packet of audio."""


@dataclass(frozen=True)
class OpusResult:
    """Decoded audio, sizes and times of a roundtrip through Opus.

    Attributes:
        pcm: Float32 `(channels, samples)`, with the length and rate of the input.
        bits: Size of all packets of audio in bits, without the container.
        file_bits: Size of the file in bits, container included.
        encode_seconds, decode_seconds: Run times of the programs, with their start and file access.
    """

    pcm: Pcm
    bits: int
    file_bits: int
    encode_seconds: float
    decode_seconds: float


def nearest_bitrate(kbps: float, channels: int = 1) -> float:
    """Bitrate of Opus in kbps nearest to `kbps`, both for all channels together."""
    return float(np.clip(kbps, MIN_KBPS, MAX_KBPS * channels))


def check_available() -> None:
    """Raise `EngineNotAvailable` if neither ffmpeg nor opus-tools are found."""
    _commands(Path(), Path(), Path(), 0, 0)


def roundtrip(pcm: Pcm, sample_rate: int, kbps: float) -> OpusResult:
    """Encode a signal with Opus and decode it.

    Args:
        pcm: Audio `(channels, samples)`.
        sample_rate: Rate in hertz.
        kbps: Target bitrate for all channels together.

    Raises:
        EngineNotAvailable: Neither ffmpeg with libopus nor opusenc and opusdec are found.
        InferenceError: The program failed; the message ends with the program's own.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, coded, output = (Path(folder) / name for name in ("in.wav", "coded.opus", "out.wav"))
        audio.write(source, pcm, sample_rate)
        seconds = []
        for command in _commands(source, coded, output, kbps, sample_rate):
            started = time.perf_counter()
            process = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
            if process.returncode:
                said = process.stderr.decode("utf-8", "replace").strip()
                raise InferenceError(f"{command[0]} failed: {said[-500:]}")
            seconds.append(time.perf_counter() - started)
        content = coded.read_bytes()
        decoded, rate = audio.read(output)
    decoded = audio.resample(decoded, rate, sample_rate)[:, : pcm.shape[1]]
    decoded = np.pad(decoded, ((0, 0), (0, pcm.shape[1] - decoded.shape[1])))
    return OpusResult(decoded, 8 * sum(packet_sizes(content)[HEADER_PACKETS:]), 8 * len(content), *seconds)


def _commands(source: Path, coded: Path, output: Path, kbps: float, sample_rate: int) -> list[list[str]]:
    """Command lines of the encoder and the decoder."""
    if ffmpeg := shutil.which("ffmpeg"):
        quiet = [ffmpeg, "-v", "error", "-y", "-i"]
        return [
            [*quiet, str(source), "-c:a", "libopus", "-b:a", f"{kbps * 1000:.0f}", str(coded)],
            [*quiet, str(coded), "-ar", str(sample_rate), "-c:a", "pcm_f32le", str(output)],
        ]
    if (encoder := shutil.which("opusenc")) and (decoder := shutil.which("opusdec")):
        return [
            [encoder, "--quiet", "--bitrate", str(kbps), str(source), str(coded)],
            [decoder, "--quiet", "--float", "--rate", str(sample_rate), str(coded), str(output)],
        ]
    raise EngineNotAvailable("Opus needs ffmpeg with libopus, or opusenc and opusdec, on the PATH; install one of them")


def packet_sizes(content: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file (RFC 3533, section 6).

    Pages list the sizes of their segments. A packet ends with the first segment of less than 255 bytes.

    Raises:
        CorruptFile: No page begins where one is expected.
    """
    offset, sizes, size = 0, [], 0
    while offset < len(content):
        if content[offset : offset + 4] != b"OggS" or len(content) < offset + 27:
            raise CorruptFile(f"no Ogg page begins at byte {offset}")
        segments = content[offset + 27 : offset + 27 + content[offset + 26]]
        for segment in segments:
            size += segment
            if segment < 255:
                sizes.append(size)
                size = 0
        offset += 27 + len(segments) + sum(segments)
    return sizes
