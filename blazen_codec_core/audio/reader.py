"""Block-wise reading of audio files; missing audio is an error or a remark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptFile, InvalidInput
from ..files import existing
from ..validation import HIGHEST_RATE, LOWEST_RATE, Pcm
from . import containers, ffmpeg, sndfile
from .layout import Layout
from .parts import Span, size_of, splice

Truncated = Literal["refuse", "keep"]
"""Policy for files that are shorter than their container states."""
SLACK_SECONDS = 0.1
"""Tolerance in seconds for parts that end after the recording, because times in lists are rounded."""
FURTHEST = 1e9
"""Largest time in seconds (thirty years), so that sample counts fit into 64 bits."""
FFMPEG_SLACK_SECONDS, FFMPEG_SLACK_SHARE = 0.5, 0.01
"""Tolerance for FFmpeg returning less than the container states, which includes samples trimmed at the ends."""


class _Decoder(Protocol):
    """Decoder of one audio file."""

    sample_rate: int
    channels: int
    total: int | None

    def survey(self) -> Layout: ...

    def blocks(self, start: int, stop: int | None, frames: int) -> Iterator[NDArray[np.float32]]: ...


class AudioReader:
    """Block-wise reader of an audio file or a part of it, at the file's sample rate.

    The format is recognized by content, not by suffix. libsndfile has precedence over PyAV, so that the samples do not depend on
    whether PyAV is installed.

    Args:
        path: Path of the file; only a display name if `content` is given.
        content: Open, seekable file; not closed.
        start: Start of the part in seconds.
        end: End of the part in seconds; `None` for the end of the file.
        at_most: Allow `end` beyond the end of the file.
        truncated: `refuse` files that are shorter than their container states, or `keep` what is there.

    Attributes:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        num_samples: Expected samples per channel; `None` if the container does not state it.
        remarks: Anomalies of the file; complete once all blocks have been read.

    Raises:
        InvalidInput: The file does not exist, or has no audio in that range.
        CorruptFile: The file cannot be read as audio.
        EngineNotAvailable: The format needs PyAV, which is not installed.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        content: BinaryIO | None = None,
        start: float = 0.0,
        end: float | None = None,
        at_most: bool = False,
        truncated: Truncated = "refuse",
    ) -> None:
        if truncated not in get_args(Truncated):
            raise InvalidInput(f"truncated is {truncated!r}; expected refuse or keep")
        self.path = Path(path) if content else existing(path)
        self.remarks: list[str] = []
        self._keeps = truncated == "keep"
        with ExitStack() as opened:
            try:
                self._decoder = self._open(content, opened)
            except OSError as error:
                raise CorruptFile(f"{self.path} cannot be read: {error.strerror or error}") from error
            self.sample_rate, self.channels = self._decoder.sample_rate, self._decoder.channels
            if not LOWEST_RATE <= self.sample_rate <= HIGHEST_RATE:
                raise CorruptFile(f"{self.path} states {self.sample_rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
            self._choose(start, end, at_most)
            self._opened = opened.pop_all()

    def _open(self, content: BinaryIO | None, opened: ExitStack) -> _Decoder:
        """Open the file and return its decoder; `opened` closes the file with the rest."""
        file = content or opened.enter_context(self.path.open("rb"))
        container, begin = containers.identify(file)
        self._is_exact = container is not None and container.is_exact
        name = str(self.path)
        if container is not None and container.extra is not None:
            return ffmpeg.Decoder(file, name, container.name)
        where = None if content or begin else self.path
        return sndfile.Decoder(where, splice(file, Span(begin, size_of(file))), name, container)

    def _choose(self, start: float, end: float | None, at_most: bool) -> None:
        """Choose the part of the file to read, in samples."""
        total, rate = self._decoder.total, self.sample_rate
        for time in (start, end):
            if time is not None and not abs(time) <= FURTHEST:
                raise InvalidInput(f"a part of {self.path} starts or ends at {time!r} s; expected a number up to {FURTHEST:g}")
        self._start, self._stop = round(start * rate), None if end is None else round(end * rate)
        self._due = None if at_most or self._stop is None else self._stop - round(SLACK_SECONDS * rate)
        self._part = "" if not start and end is None else f" from {start:g} to {'the end' if end is None else f'{end:g}'} s"
        stop = self._stop if total is None else total if self._stop is None else min(self._stop, total)
        self.num_samples: int | None = None if stop is None else stop - self._start
        if self._start < 0 or (stop is not None and stop <= self._start and (self._is_exact or stop == self._stop or not stop)):
            raise self._none()
        if total is not None and self._is_exact:
            self._check_end(total)

    def _none(self) -> InvalidInput:
        return InvalidInput(f"{self.path} has no audio{self._part}")

    def _check_end(self, total: int) -> None:
        if self._due is not None and total < self._due:
            raise InvalidInput(f"{self.path} is {total / self.sample_rate:.2f} s long and has no part{self._part}")

    def blocks(self, frames: int = 1 << 18) -> Iterator[Pcm]:
        """Yield float32 blocks `(channels, samples)` of at most `frames` samples; they may be non-contiguous views.

        Raises:
            InvalidInput: The file has no audio in that range.
            CorruptFile: The file is damaged, or shorter than its container states.
        """
        self.remarks = []
        try:
            layout = self._decoder.survey()
        except OSError as error:
            raise CorruptFile(f"{self.path} cannot be read: {error.strerror or error}") from error
        self.remarks += layout.remarks
        if layout.missing is not None:
            self._note(layout.missing, is_error=layout.exact)
        at, given = self._start, 0
        for block in self._decoder.blocks(self._start, self._stop, frames):
            piece = block if self._stop is None else block[:, : self._stop - at]
            at += block.shape[1]
            if piece.shape[1]:
                given += piece.shape[1]
                yield piece
            if self._stop is not None and at >= self._stop:
                break
        else:
            if not given:
                raise self._none()
            self._check_whole(at, checked=layout.missing is not None)

    def count(self) -> int:
        """Return the samples per channel. The audio is decoded unless the container states the exact number."""
        if self.num_samples is not None and self._is_exact:
            return self.num_samples
        return sum(block.shape[1] for block in self.blocks())

    def _check_whole(self, total: int, *, checked: bool) -> None:
        """Raise or remark if the audio ended too early."""
        said = self._decoder.total
        if said is not None and not checked:
            missing = said - total
            slack = 0.0
            if isinstance(self._decoder, ffmpeg.Decoder):
                slack = max(FFMPEG_SLACK_SECONDS * self.sample_rate, FFMPEG_SLACK_SHARE * said)
            if missing > slack:
                seconds = f"{said / self.sample_rate:.2f} s), but {total} ({total / self.sample_rate:.2f} s) exist"
                is_error = self._is_exact or isinstance(self._decoder, ffmpeg.Decoder)
                self._note(f"its header states {said} samples ({seconds}", is_error=is_error)
        self._check_end(total)

    def _note(self, missing: str, *, is_error: bool) -> None:
        """Record missing audio as a remark, or raise it."""
        if is_error and not self._keeps:
            raise CorruptFile(
                f"{self.path} is incomplete or damaged: {missing}. Use truncated='keep' (--truncated keep) to read what exists"
            )
        self.remarks.append(f"it is incomplete or damaged: {missing}")

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | PathLike[str], *, truncated: Truncated = "refuse") -> tuple[Pcm, int]:
    """Read a whole file as float32 `(channels, samples)` with its sample rate; raise the errors of `AudioReader`."""
    with AudioReader(path, truncated=truncated) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate
