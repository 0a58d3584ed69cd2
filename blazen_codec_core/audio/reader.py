"""Audio files in, block by block: the audio that is there, or an error."""

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
"""What becomes of a file that is shorter than its container says."""
SLACK_SECONDS = 0.1
"""By how much a part may end after the recording; lists are rounded."""
FURTHEST = 1e9
"""Seconds up to which a part of a file may be asked for: thirty years, in samples that 64 bits count."""
FFMPEG_SLACK_SECONDS, FFMPEG_SLACK_SHARE = 0.5, 0.01
"""By how much what a container says may be more than FFmpeg gives; it includes what is cut off at the ends."""


class _Decoder(Protocol):
    """Decoder of one audio file: its rate, its channels, its length and its samples in blocks."""

    sample_rate: int
    channels: int
    total: int | None

    def survey(self) -> Layout: ...

    def blocks(self, start: int, stop: int | None, frames: int) -> Iterator[NDArray[np.float32]]: ...


class AudioReader:
    """An audio file, or a part of one, read block by block, at its own sample rate.

    What it is, its content says, whatever it is called. libsndfile reads what it can, also where PyAV is installed, so that the
    samples do not depend on that.

    Args:
        path: Where it is; only its name, if there is `content`.
        content: The file itself, open and seekable; it is left open.
        start: In seconds.
        end: In seconds; the end of the file if `None`.
        at_most: Whether `end` may lie beyond the end of the file.
        truncated: `refuse` a file that is shorter than its container says, or `keep` what there is of it.

    Attributes:
        sample_rate: In hertz.
        channels: Of the file.
        num_samples: A channel, that there should be; `None` where the container does not say.
        remarks: What a listener should know of it, in words; complete once all has been read.

    Raises:
        InvalidInput: There is no such file, or it holds no audio there.
        CorruptFile: It cannot be read as audio.
        EngineNotAvailable: PyAV reads it, which is not installed.
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
            raise InvalidInput(f"truncated is refuse or keep, not {truncated!r}")
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
                raise CorruptFile(f"{self.path} says {self.sample_rate} Hz; audio has {LOWEST_RATE} to {HIGHEST_RATE} Hz")
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
                raise InvalidInput(f"a part of {self.path} begins or ends at {time!r} s; times are numbers up to {FURTHEST:g}")
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
        return InvalidInput(f"{self.path} holds no audio{self._part}")

    def _check_end(self, total: int) -> None:
        if self._due is not None and total < self._due:
            raise InvalidInput(f"{self.path} is {total / self.sample_rate:.2f} s long; there is no part of it{self._part}")

    def blocks(self, frames: int = 1 << 18) -> Iterator[Pcm]:
        """The audio in pieces of `(channels, at most frames)`, float32; channels may lie side by side, as in the file.

        Raises:
            InvalidInput: It holds no audio there.
            CorruptFile: It is damaged, or shorter than its container says.
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
        """Number of samples of each channel. They are decoded where the container does not say it, or may be wrong."""
        if self.num_samples is not None and self._is_exact:
            return self.num_samples
        return sum(block.shape[1] for block in self.blocks())

    def _check_whole(self, total: int, *, checked: bool) -> None:
        """Raise where the audio ended too early."""
        said = self._decoder.total
        if said is not None and not checked:
            missing = said - total
            slack = 0.0
            if isinstance(self._decoder, ffmpeg.Decoder):
                slack = max(FFMPEG_SLACK_SECONDS * self.sample_rate, FFMPEG_SLACK_SHARE * said)
            if missing > slack:
                seconds = f"{said / self.sample_rate:.2f} s), and {total} ({total / self.sample_rate:.2f} s) are there"
                is_error = self._is_exact or isinstance(self._decoder, ffmpeg.Decoder)
                self._note(f"its header says {said} samples ({seconds}", is_error=is_error)
        self._check_end(total)

    def _note(self, missing: str, *, is_error: bool) -> None:
        """Say that something is missing, or raise it."""
        if is_error and not self._keeps:
            raise CorruptFile(
                f"{self.path} is incomplete or damaged: {missing}. To have what is there, ask for truncated files to be kept"
            )
        self.remarks.append(f"it is incomplete or damaged: {missing}")

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | PathLike[str], *, truncated: Truncated = "refuse") -> tuple[Pcm, int]:
    """A whole file: float32 `(channels, samples)` and its sample rate. Raises as `AudioReader` and its `blocks` do."""
    with AudioReader(path, truncated=truncated) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.sample_rate
