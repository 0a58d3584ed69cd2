"""FFmpeg decoder for files that libsndfile cannot read (AAC, MP4, WebM, WMA …). Needs PyAV, the extra `av`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptFile, reason
from ..installation import missing
from .layout import AS_IT_IS, Layout

EXACT = frozenset({"mov", "mp4", "matroska", "webm", "asf", "wv", "ape", "tta"})
"""FFmpeg names of formats that state their length."""
DEMUXERS = (
    "aac", "amr", "amrnb", "amrwb", "ape", "asf", "avi", "dsf", "flv", "iff", "matroska", "mov", "mpc", "mpc8", "mpeg", "mpegts",
    "ogg", "rm", "tta", "wv",
)  # fmt: skip
"""Allowed demuxers. Others, such as HLS, DASH and `concat`, open further files and URLs, and FFmpeg also detects some of them in
files of other formats."""
OPTIONS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
"""FFmpeg options that prevent it from opening any other file or URL."""


class Decoder:
    """Decoder of the first audio stream in a file.

    Args:
        file: Seekable file; not closed.
        name: File name for messages.
        kind: Format name for messages.

    Attributes:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        total: Samples per channel according to the container; `None` if not stated exactly.

    Raises:
        EngineNotAvailable: PyAV is not installed.
        CorruptFile: FFmpeg cannot read the file, or it has no audio.
    """

    def __init__(self, file: BinaryIO, name: str, kind: str) -> None:
        try:
            import av
        except ImportError as error:
            raise missing(f"{name} is {kind}, which libsndfile does not read", "av") from error
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
            raise CorruptFile(f"{name} cannot be read as audio: it has no sample rate")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the container and its first audio stream."""
        try:
            self._file.seek(0)
            container = self._av.open(self._file, options=OPTIONS, metadata_errors="replace")
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise CorruptFile(f"{self._name} cannot be read as audio: {reason(error)}") from error
        with container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise CorruptFile(f"{self._name} has no audio stream that FFmpeg can decode")
            yield container, container.streams.audio[0]

    def survey(self) -> Layout:
        """Return the default layout; nothing is known before decoding."""
        return AS_IT_IS

    def blocks(self, start: int, stop: int | None, frames: int) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks `(channels, samples)` of at most `frames` samples.

        Args:
            start: First sample. Earlier samples are decoded too, so that the result does not depend on `start`.
            stop: End of the wanted samples, if known; more may be yielded.
            frames: Largest block in samples.

        Raises:
            CorruptFile: The stream is truncated, or its sample rate or channels change.
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
                raise CorruptFile(f"{self._name} is truncated or damaged after {at}: {reason(error)}") from error

    def _check_same(self, frame: Any) -> None:
        """Raise if the sample rate or the channels change."""
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        if (rate, channels) != (self.sample_rate, self.channels):
            was = f"{self.sample_rate} Hz and {self.channels} channels"
            raise CorruptFile(f"{self._name} changes from {was} to {rate} Hz and {channels} channels, which is not supported")
