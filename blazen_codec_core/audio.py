"""Audio files in and out, and explicit resampling. Nothing here is done silently: callers say what they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from .checks import Pcm, check_audio, check_rate
from .errors import CorruptFile, InvalidInput
from .files import existing, replacing

SUFFIXES = frozenset({".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav"})
"""What files of audio in a folder are taken to be called."""


class AudioReader:
    """An audio file, or a part of one, read block by block, at its own sample rate.

    Args:
        path: Where it is; only its name, if there is `content`.
        content: The file itself, open; it is left open.
        start: In seconds.
        end: In seconds; the end of the file if `None`.

    Attributes:
        sample_rate: In hertz.
        channels: Of the file.
        num_samples: A channel, as the file's header says.

    Raises:
        InvalidInput: There is no such file, or it holds no audio there.
        CorruptFile: libsndfile cannot read it.
    """

    def __init__(
        self, path: str | PathLike[str], *, content: BinaryIO | None = None, start: float = 0.0, end: float | None = None
    ) -> None:
        self.path = Path(path) if content else existing(path)
        try:
            self._file = soundfile.SoundFile(content or self.path)
        except (soundfile.LibsndfileError, OSError, TypeError) as error:
            said = getattr(error, "error_string", error)  # without what it calls the file
            raise CorruptFile(f"{self.path} cannot be read as audio: {said}") from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self._start = round(start * self.sample_rate)
        stop = self._file.frames if end is None else min(self._file.frames, round(end * self.sample_rate))
        self.num_samples: int = stop - self._start
        self._is_whole = not start and end is None
        if self.num_samples <= 0 or self._start < 0:
            where = "" if self._is_whole else f" from {start:g} to {'the end' if end is None else f'{end:g}'} s"
            raise InvalidInput(f"{self.path} holds no audio{where}")

    def blocks(self, frames: int = 1 << 18) -> Iterator[Pcm]:
        """The audio in pieces of `(channels, at most frames)`, float32; channels may lie side by side, as in the file."""
        count = -1 if self._is_whole else self.num_samples
        try:
            if self._start:
                self._file.seek(self._start)
            for block in self._file.blocks(blocksize=frames, frames=count, dtype="float32", always_2d=True):
                yield block.T
        except soundfile.LibsndfileError as error:
            raise CorruptFile(f"{self.path} breaks off or is damaged: {error}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | PathLike[str]) -> tuple[Pcm, int]:
    """A whole file: float32 `(channels, samples)` and its sample rate. Raises as `AudioReader` does."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate


class AudioWriter:
    """Writes audio piece by piece; made by `writing`."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file
        self.num_samples = 0

    def write(self, pcm: Pcm) -> None:
        """`(channels, samples)`; what is outside -1 … 1 is clipped, as integer formats must."""
        self._file.write(np.clip(pcm, -1.0, 1.0).T)
        self.num_samples += pcm.shape[1]


def check_format(suffix: str) -> str:
    """What libsndfile calls the format of files with a suffix; raises `InvalidInput` if it writes none such."""
    kind = suffix[1:].upper() or "WAV"
    if kind not in soundfile.available_formats():
        raise InvalidInput(f"audio is not written as {suffix}; use .wav, .flac or .ogg")
    return kind


@contextmanager
def writing(path: str | PathLike[str], sample_rate: int, channels: int) -> Iterator[AudioWriter]:
    """A file that takes audio piece by piece and appears whole or not at all; its suffix says the format.

    Raises:
        InvalidInput: libsndfile does not write that format, rate or number of channels, or the file cannot be written.
    """
    path, sample_rate = Path(path), check_rate(sample_rate)
    kind = check_format(path.suffix)
    with replacing(path) as temporary:
        try:
            file = soundfile.SoundFile(temporary, "w", sample_rate, channels, format=kind)
        except (soundfile.LibsndfileError, ValueError, TypeError) as error:
            raise InvalidInput(f"{path} cannot be written: {error}") from error
        try:
            with file:
                yield AudioWriter(file)
        except soundfile.SoundFileError as error:
            raise InvalidInput(f"{path} cannot be written: {error}") from error


def write(path: str | PathLike[str], pcm: Pcm, sample_rate: int) -> None:
    """Writes `(channels, samples)` or `(samples,)`; raises as `writing` does."""
    pcm = check_audio(pcm)
    with writing(path, sample_rate, pcm.shape[0]) as out:
        out.write(pcm)


class Resampler:
    """soxr's best quality over a stream; the same samples for any cut of the input."""

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream = None
        if check_rate(source_rate) != check_rate(target_rate):
            self._stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality="HQ")

    def push(self, pcm: Pcm, *, last: bool = False) -> Pcm:
        """`(channels, samples)` at the source rate to what is ready at the target rate."""
        if self._stream is None:
            return np.ascontiguousarray(pcm)
        out = self._stream.resample_chunk(np.ascontiguousarray(pcm.T), last=last)
        return np.ascontiguousarray(out.reshape(-1, self._channels).T, dtype=np.float32)

    def finish(self) -> Pcm:
        """What is left once the signal has ended."""
        return self.push(np.zeros((self._channels, 0), np.float32), last=True)


def resample(pcm: Pcm, source_rate: int, target_rate: int) -> Pcm:
    """A whole signal `(channels, samples)`.

    Raises:
        InvalidInput: It is no audio, or a rate is none.
    """
    pcm = check_audio(pcm)
    resampler = Resampler(source_rate, target_rate, pcm.shape[0])
    return np.concatenate([resampler.push(pcm), resampler.finish()], axis=1)
