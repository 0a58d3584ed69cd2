"""Atomic writing of audio files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from ..errors import InvalidInput
from ..files import replacing
from ..validation import Pcm, check_audio, check_channel_count, check_rate
from .sndfile import said

AT_ONCE = 1 << 16
"""Samples per write; libsndfile's Vorbis encoder overflows the stack with millions."""
FORMATS = {
    "": ("WAV", None),
    ".aif": ("AIFF", None),
    ".aifc": ("AIFF", None),
    ".oga": ("OGG", None),
    ".opus": ("OGG", "OPUS"),
    ".snd": ("AU", None),
    ".sph": ("NIST", None),
    ".wave": ("WAV", None),
}
"""libsndfile's format and subtype by suffix, where the format is not the suffix itself."""
LARGEST_WAV = (1 << 32) - (1 << 20)
"""Most bytes of audio in a WAV; larger files become RF64."""
_SAMPLE_BYTES = 2
_ERRORS = (soundfile.SoundFileError, ValueError, TypeError, AssertionError)


class AudioWriter:
    """Streaming writer, created by `writing`."""

    def __init__(self, file: soundfile.SoundFile, most: int | None, failed: Callable[[Exception], Exception]) -> None:
        self._file, self._most, self._failed = file, most, failed
        self.num_samples = 0

    def write(self, pcm: Pcm) -> None:
        """Write `(channels, samples)`, clipped to -1 … 1 because of integer formats.

        Raises:
            InvalidInput: The file cannot be written, or a WAV opened without `num_samples` would be too large.
        """
        if self._most is not None and self.num_samples + pcm.shape[1] > self._most:
            raise InvalidInput(
                "the audio exceeds 4 GiB, the limit of WAV. Pass num_samples, or use the suffix .rf64, .w64 or .flac"
            )
        try:
            for begin in range(0, pcm.shape[1], AT_ONCE):
                self._file.write(np.clip(pcm[:, begin : begin + AT_ONCE], -1.0, 1.0).T)
        except _ERRORS as error:
            raise self._failed(error) from error
        self.num_samples += pcm.shape[1]


def _format(suffix: str) -> tuple[str, str | None]:
    """Return libsndfile's format and subtype for a suffix; a subtype of `None` is the default."""
    kind, coding = FORMATS.get(suffix.lower(), (suffix[1:].upper(), None))
    if kind not in soundfile.available_formats() or kind == "RAW":
        raise InvalidInput(f"the format {suffix} cannot be written. Use .wav, .flac or .ogg")
    return kind, coding


def check_format(suffix: str, sample_rate: int | None = None, channels: int = 1) -> None:
    """Check that audio can be written in the format of a suffix.

    Args:
        suffix: File suffix with the dot.
        sample_rate: Sample rate in Hz; `None` for any.
        channels: Number of channels.

    Raises:
        InvalidInput: libsndfile does not write the format, or the format cannot hold such audio.
    """
    kind, coding = _format(suffix)
    if sample_rate is None:
        return
    check_channel_count(channels, least=1)
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", check_rate(sample_rate), channels, coding, format=kind) as file:
            file.write(np.zeros((1, channels), np.float32))
    except _ERRORS as error:
        raise InvalidInput(
            f"{suffix or '.wav'} cannot hold {channels} channels at {sample_rate} Hz ({said(error)}). Use .wav"
        ) from error


@contextmanager
def writing(
    path: str | PathLike[str], sample_rate: int, channels: int, *, num_samples: int | None = None
) -> Iterator[AudioWriter]:
    """Open a file for streaming; it appears only if it was written completely. The suffix sets the format.

    Args:
        path: Path of the file.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        num_samples: Total samples per channel, if known. A WAV above 4 GiB is written as RF64.

    Raises:
        InvalidInput: The format cannot hold such audio, or the file cannot be written.
    """
    path = Path(path)
    check_format(path.suffix, sample_rate, channels)
    kind, coding = _format(path.suffix)
    most = LARGEST_WAV // (channels * _SAMPLE_BYTES) if kind in ("WAV", "WAVEX") else None
    if most is not None and num_samples is not None and num_samples > most:
        kind, most = "RF64", None
    with replacing(path) as temporary, temporary.open("wb+") as plain:
        kept = _Kept(plain)

        def failed(error: Exception) -> Exception:
            return kept.error or InvalidInput(f"{path} cannot be written: {said(error)}")

        try:
            file = soundfile.SoundFile(kept, "w", sample_rate, channels, coding, format=kind)
        except _ERRORS as error:
            raise failed(error) from error
        try:
            yield AudioWriter(file, most, failed)
        finally:
            file.close()
        if kept.error is not None:
            raise kept.error


class _Kept:
    """File wrapper for libsndfile that keeps the first error, because libsndfile does not report reasons."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            return 0

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(to, whence)
        except OSError as error:  # seeking flushes the buffer
            self.error = self.error or error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing; closing flushes the file."""


def write(path: str | PathLike[str], pcm: Pcm, sample_rate: int) -> None:
    """Write `(channels, samples)` or `(samples,)`; raise the errors of `writing`."""
    pcm = check_audio(pcm)
    with writing(path, sample_rate, pcm.shape[0], num_samples=pcm.shape[1]) as out:
        out.write(pcm)
