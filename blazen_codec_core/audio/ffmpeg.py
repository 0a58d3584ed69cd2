"""Decoder of files that libsndfile cannot read (AAC, MP4, WebM, WMA …). Needs PyAV, whose wheels bring FFmpeg: the extra `av`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptFile, EngineNotAvailable, reason
from .layout import AS_IT_IS, Layout

EXACT = frozenset({"mov", "mp4", "matroska", "webm", "asf", "wv", "ape", "tta"})
"""Formats, as FFmpeg calls them, that say how long they are."""
DEMUXERS = (
    "aac", "amr", "amrnb", "amrwb", "ape", "asf", "avi", "dsf", "flv", "iff", "matroska", "mov", "mpc", "mpc8", "mpeg", "mpegts",
    "ogg", "rm", "tta", "wv",
)  # fmt: skip
"""All that FFmpeg reads here. Others are lists of further files and addresses, such as HLS, DASH and its own `concat`, and FFmpeg
finds some of them anywhere in what looks like another format."""
OPTIONS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
"""With which nothing but the file itself is opened, whatever is written in it."""


class Decoder:
    """The first stream of audio in a file.

    Args:
        file: Seekable; it is left open.
        name: For messages.
        kind: What the file is, for messages.

    Attributes:
        sample_rate: In hertz.
        channels: Of the stream.
        total: Samples a channel that the container says there are; `None` where it does not say exactly.

    Raises:
        EngineNotAvailable: PyAV is not installed.
        CorruptFile: FFmpeg cannot read it, or it holds no audio.
    """

    def __init__(self, file: BinaryIO, name: str, kind: str) -> None:
        try:
            import av
        except ImportError as error:
            raise EngineNotAvailable(
                f"{name} is {kind}, which libsndfile does not read: pip install 'blazen-codec-core[av]'"
            ) from error
        self._av: Any = av
        self._file, self._name = file, name
        with self._opened() as (container, stream):
            self.sample_rate: int = stream.codec_context.sample_rate or 0
            self.channels: int = stream.codec_context.channels
            is_exact = bool(EXACT & set(str(container.format.name).split(",")))
            length = stream.duration
            is_known = is_exact and length and length > 0
            self.total: int | None = round(length * stream.time_base * self.sample_rate) if is_known else None
        if not self.sample_rate or not self.channels:
            raise CorruptFile(f"{name} cannot be read as audio: its sample rate is not known")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its first stream of audio."""
        try:
            self._file.seek(0)
            container = self._av.open(self._file, options=OPTIONS, metadata_errors="replace")
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise CorruptFile(f"{self._name} cannot be read as audio: {reason(error)}") from error
        with container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise CorruptFile(f"{self._name} holds no stream of audio that FFmpeg can decode")
            yield container, container.streams.audio[0]

    def survey(self) -> Layout:
        """Nothing that would be known before it is decoded."""
        return AS_IT_IS

    def blocks(self, start: int, stop: int | None, frames: int) -> Iterator[NDArray[np.float32]]:
        """The audio in pieces of `(channels, at most frames)`, float32.

        Args:
            start: The first sample. What comes before it is decoded too, so that the samples are the same.
            stop: Behind the last that is wanted, if known; there may be more.

        Raises:
            CorruptFile: It breaks off, or the sample rate or the channels change.
        """
        made = 0
        with self._opened() as (container, stream):
            planar = self._av.AudioResampler(format="fltp")
            try:
                for frame in container.decode(stream):
                    self._check_same(frame)
                    frame.pts = None
                    for planes in planar.resample(frame):
                        pcm: NDArray[np.float32] = planes.to_ndarray()
                        skip = max(0, start - made)
                        made += pcm.shape[1]
                        for begin in range(skip, pcm.shape[1], frames):
                            yield pcm[:, begin : begin + frames]
            except (self._av.FFmpegError, OSError, ValueError) as error:
                at = f"{made / self.sample_rate:.2f} s"
                raise CorruptFile(f"{self._name} breaks off or is damaged after {at}: {reason(error)}") from error

    def _check_same(self, frame: Any) -> None:
        """Raise where the sample rate or the channels change."""
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        if (rate, channels) != (self.sample_rate, self.channels):
            was = f"{self.sample_rate} Hz and {self.channels} channels"
            raise CorruptFile(
                f"{self._name} changes from {was} to {rate} Hz and {channels}; only the same all through can be read"
            )
