"""Values of streams in the forms that clients chose: messages to tokens or audio, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ...audio import Resampler
from ...errors import InvalidInput, InvalidTokens, ServiceError
from ...plugins.registry import Registry
from ...protocol import Ids, Open, SampleFormat, Text, TokenGroups, pcm_from_bytes, pcm_to_bytes
from ...specs import CodecSpec
from ...tokens.layouts import LayoutReader, LayoutWriter
from ...tokens.tokens import CodecTokens
from ...validation import Pcm, check_audio

Given = bytes | Ids | Text


class Inlet(ABC):
    """Reader of what a client sends.

    Attributes:
        taken: Frames of tokens or samples of audio so far.
    """

    taken = 0

    @abstractmethod
    def push(self, given: Given) -> Any:
        """Return tokens or audio of a message; `None` if it completes none."""

    def finish(self) -> Any:
        """Return what is left at the end; `None` if there is nothing."""
        return None

    @property
    def ended(self) -> bool:
        """True if what was sent says that the signal has ended."""
        return False

    @property
    def lost(self) -> int:
        """Number of groups of ids that were wrong."""
        return 0


class AudioInlet(Inlet):
    """Reader of audio, which is resampled to the codec's rate."""

    def __init__(self, sample_format: SampleFormat, channels: int, resampler: Resampler) -> None:
        self._format, self._channels, self._resampler = sample_format, channels, resampler

    def push(self, given: Given) -> Pcm | None:
        pcm = check_audio(pcm_from_bytes(_binary(given, "audio"), self._format, self._channels), empty=True)
        self.taken += pcm.shape[1]
        return _unless_empty(self._resampler.push(pcm))

    def finish(self) -> Pcm | None:
        return _unless_empty(self._resampler.finish())


class TokenInlet(Inlet):
    """Reader of tokens in binary messages."""

    def __init__(self, unpack: Callable[[bytes], CodecTokens]) -> None:
        self._unpack = unpack

    def push(self, given: Given) -> CodecTokens | None:
        tokens = self._unpack(_binary(given, "tokens"))
        self.taken += tokens.frames
        return tokens if tokens.frames else None


class IdInlet(Inlet):
    """Reader of ids of a layout: int32 in binary messages, numbers, or text."""

    def __init__(self, reader: LayoutReader) -> None:
        self._reader = reader

    def push(self, given: Given) -> CodecTokens | None:
        if isinstance(given, bytes):
            if len(given) % 4:
                raise InvalidTokens(f"{len(given)} bytes are no whole ids; an id has 4 bytes")
            ids: Any = np.frombuffer(given, "<i4")
        else:
            ids = given.text if isinstance(given, Text) else given.ids
        return self._counted(self._reader.push(ids)) if len(ids) else None

    def finish(self) -> CodecTokens | None:
        return self._counted(self._reader.finish())

    def _counted(self, tokens: CodecTokens) -> CodecTokens | None:
        self.taken += tokens.frames
        return tokens if tokens.frames else None

    @property
    def ended(self) -> bool:
        return self._reader.ended

    @property
    def lost(self) -> int:
        return self._reader.lost


class Outlet(ABC):
    """Writer of what a client receives."""

    @abstractmethod
    def push(self, value: Any) -> bytes:
        """Return the bytes of tokens or audio."""

    def finish(self) -> bytes:
        """Return the bytes that are left at the end."""
        return b""


class AudioOutlet(Outlet):
    """Writer of audio."""

    def __init__(self, sample_format: SampleFormat) -> None:
        self._format = sample_format

    def push(self, value: Pcm) -> bytes:
        return pcm_to_bytes(value, self._format)


class TokenOutlet(Outlet):
    """Writer of tokens."""

    def __init__(self, pack: Callable[[CodecTokens], bytes]) -> None:
        self._pack = pack

    def push(self, value: CodecTokens) -> bytes:
        return self._pack(value)


class IdOutlet(Outlet):
    """Writer of ids of a layout, int32."""

    def __init__(self, writer: LayoutWriter) -> None:
        self._writer = writer

    def push(self, value: CodecTokens) -> bytes:
        return self._writer.push(value).astype("<i4").tobytes()

    def finish(self) -> bytes:
        return self._writer.finish().astype("<i4").tobytes()


def codings(asked: Open, spec: CodecSpec, registry: Registry) -> tuple[Inlet, Outlet]:
    """Return the reader and the writer of a stream.

    Raises:
        UnknownCodec: The layout does not exist.
        InvalidInput: Options do not fit the direction, the codec or each other.
        NotYetImplemented: The codec or the layout does not stream in this form.
    """
    count = spec.codebooks_for(asked.bandwidth, asked.num_codebooks)
    layout = None if asked.layout is None else registry.layout(asked.layout)
    if asked.direction == "decode":
        if asked.sample_rate not in (None, spec.sample_rate) or asked.channels not in (None, spec.channels):
            raise InvalidInput(f"{spec.name} gives {spec.sample_rate} Hz and {spec.channels} channels; it is not converted")
        audio = AudioOutlet(asked.sample_format)
        if layout is not None:
            books = None if asked.bandwidth is asked.num_codebooks is None else count
            return IdInlet(layout.reader(spec, num_codebooks=books, errors=asked.layout_errors)), audio
        return TokenInlet(CodecTokens.from_bytes if asked.tokens == "container" else TokenGroups(spec, count).unpack), audio
    if asked.channels not in (None, spec.channels):
        raise InvalidInput(f"channels is {asked.channels}; {spec.name} takes {spec.channels}")
    resampler = Resampler(spec.sample_rate if asked.sample_rate is None else asked.sample_rate, spec.sample_rate, spec.channels)
    pcm = AudioInlet(asked.sample_format, spec.channels, resampler)
    if layout is not None:
        return pcm, IdOutlet(layout.writer(spec, num_codebooks=count))
    return pcm, TokenOutlet(CodecTokens.to_bytes if asked.tokens == "container" else TokenGroups(spec, count).pack)


def _unless_empty(pcm: Pcm) -> Pcm | None:
    return pcm if pcm.size else None


def _binary(given: Given, what: str) -> bytes:
    if not isinstance(given, bytes):
        raise ServiceError(f"{what} are sent in binary messages; {type(given).__name__.lower()} needs a layout", "protocol")
    return given
