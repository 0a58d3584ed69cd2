"""libsndfile decoder for WAV, FLAC, Ogg, MP3 and some twenty other formats."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..errors import CorruptFile, reason
from . import mpeg
from .containers import FLAC, MPEG, Container
from .layout import AS_IT_IS, Layout
from .parts import Span, size_of, splice

MOST_SAMPLES = 1 << 44
"""Largest credible sample count of a header; half a year at the highest sample rate."""
LEAST_READ = 4096
"""Samples to request when none are expected. Kept small, because libsndfile zero-fills the rest of the buffer."""
RUN_UP = {"MP3": 32 * 1152, "OGG": 48_000}
"""Samples to start earlier after a seek, by format, because decoders have memory. MP3: 511 bytes of frames, and an overlap."""
_ERRORS = (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # untyped
    """A file that is read sequentially.

    `soundfile` seeks to the current position after each read, which resets libmpg123 and changes its samples.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        """Tell whether libsndfile can seek in the file."""
        return bool(super().seekable())


class Decoder:
    """Decoder of the audio of a file; concatenated streams follow each other.

    Args:
        path: Path that libsndfile can open; `None` to read `file`.
        file: Seekable file; not closed.
        name: File name for messages.
        container: Container; `None` if unknown.

    Attributes:
        sample_rate: Sample rate in Hz.
        channels: Channels of the first stream.
        total: Expected samples per channel; `None` if the container does not state it.

    Raises:
        CorruptFile: libsndfile cannot read the file.
    """

    def __init__(self, path: Path | None, file: BinaryIO, name: str, container: Container | None) -> None:
        self._path, self._file, self._name, self._container = path, file, name, container
        self._layout = container.layout(file) if container and container.layout and not container.scans else None
        links = (self._layout or AS_IT_IS).links
        if container is MPEG:
            links = (self._from_first_frame(),)
        with self._opened(links[0] if links else None) as first:
            self.sample_rate: int = first.samplerate
            self.channels: int = first.channels
            total = first.frames
            if container is None and first.format == "MP3":
                container = self._container = MPEG
        says_nothing = (container is MPEG and not mpeg.says_length(file)) or (container is FLAC and not total)
        self.total: int | None = None if says_nothing or total > MOST_SAMPLES else total

    def _from_first_frame(self) -> BinaryIO:
        """Return the file from its first MPEG frame on."""
        found = mpeg.first_frame(self._file)
        if found is None:
            raise CorruptFile(f"{self._name} cannot be read as audio ({MPEG.name}): it has no frames")
        return splice(self._file, Span(found, size_of(self._file)))

    def survey(self) -> Layout:
        """Return the layout of the file; this may read the whole file."""
        if self._layout is None:
            look = self._container.layout if self._container else None
            self._layout = look(self._file) if look else AS_IT_IS
        return self._layout

    def blocks(self, start: int, stop: int | None, frames: int) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks `(channels, samples)` of at most `frames` samples.

        Args:
            start: First sample.
            stop: End of the wanted samples, if known; more may be yielded.
            frames: Largest block in samples.

        Raises:
            CorruptFile: The file is damaged, or its streams differ in sample rate or channels.
        """
        before = 0
        layout = self.survey()
        for number, link in enumerate(layout.links or (None,)):
            with self._opened(link) as file:
                if (file.samplerate, file.channels) != (self.sample_rate, self.channels):
                    raise CorruptFile(
                        f"{self._name} changes from {self.sample_rate} Hz and {self.channels} channels to "
                        f"{file.samplerate} Hz and {file.channels} channels, which is not supported"
                    )
                skip = max(0, start - before)
                try:
                    if skip and file.frames <= MOST_SAMPLES and file.frames <= skip:
                        before += file.frames
                        continue
                    reached = 0
                    if skip and file.can_seek() and layout.positions[number : number + 1] in ((), (file.frames,)):
                        reached = file.seek(max(0, skip - RUN_UP.get(file.format, 0)))
                        before, skip = before + reached, skip - reached
                    begin = before
                    while True:
                        due = min(file.frames - (before - begin) - reached, math.inf if stop is None else stop - before)
                        block = self._read(file, frames, due)
                        if not len(block):
                            break
                        before += len(block)
                        if skip < len(block):
                            yield block[skip:].T
                        skip = max(0, skip - len(block))
                except _ERRORS as error:
                    at = f"{before / self.sample_rate:.2f} s"
                    raise CorruptFile(f"{self._name} is truncated or damaged after {at}: {said(error)}") from error

    def _read(self, file: _Sequential, frames: int, due: float) -> NDArray[np.float32]:
        """Read a block; `due` is the expected rest in samples. Data after the last FLAC frame is not an error."""
        is_flac = self._container is FLAC
        asked = due if is_flac and due > 0 else max(due, LEAST_READ)
        try:
            block: NDArray[np.float32] = file.read(int(min(frames, asked)), dtype="float32", always_2d=True)
        except _ERRORS:
            if is_flac and due <= 0:
                return np.empty((0, self.channels), np.float32)
            raise
        return block

    def _opened(self, link: BinaryIO | None) -> _Sequential:
        """Open a stream; `None` opens the unchanged file."""
        source: Any = link
        if link is None and self._path is not None:
            source = str(self._path) if sys.platform == "win32" else os.fsencode(self._path)
        elif link is None:
            source = self._file
        try:
            if not isinstance(source, str | bytes):
                if not size_of(source):
                    raise CorruptFile(f"{self._name} cannot be read as audio: it is empty")
                source.seek(0)
            return _Sequential(source)
        except _ERRORS as error:
            kind = f" ({self._container.name})" if self._container else ""
            raise CorruptFile(f"{self._name} cannot be read as audio{kind}: {said(error)}") from error


def said(error: BaseException) -> str:
    """Return the message of a libsndfile error without its file name."""
    return str(getattr(error, "error_string", "")) or reason(error)
