"""Round trips of a signal at one rate: through a codec's sessions, through a codec at once, through Opus."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import NotYetImplemented
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from . import opus


class Roundtrip(ABC):
    """One signal to its coded form and back, at one rate, measured.

    Attributes:
        sample_rate: Rate of the signal in hertz.
        encode_seconds, decode_seconds: Seconds of work so far.
        bits: Size of the coded signal, once it has ended.
        file_bits: Size with a container, if the system has one.
        tokens: Tokens of the signal, once it has ended, if the system has any.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.encode_seconds = self.decode_seconds = self.bits = 0.0
        self.file_bits: float | None = None
        self.tokens: CodecTokens | None = None

    @abstractmethod
    def push(self, pcm: Pcm) -> Pcm:
        """Push the next samples `(channels, samples)`; return the decoded samples that are ready, often fewer or none."""

    @abstractmethod
    def finish(self) -> Pcm:
        """End the signal and return the rest, so that there are as many samples in all as were pushed."""

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.encode_seconds += time.perf_counter() - started

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.decode_seconds += time.perf_counter() - started


class StreamingRoundtrip(Roundtrip):
    """Roundtrip through a codec's sessions, which decode tokens as soon as they come out.

    Raises:
        NotYetImplemented: The codec has no sessions.
    """

    def __init__(self, codec: DynCodecProvider, channels: int, bandwidth: float | None) -> None:
        super().__init__(codec.sample_rate)
        self._encoder = codec.encoder_session(channels, bandwidth=bandwidth)
        self._decoder = codec.decoder_session()
        self._parts: list[CodecTokens] = []

    def push(self, pcm: Pcm) -> Pcm:
        with self._encoding():
            self._parts.append(self._encoder.push(pcm))
        with self._decoding():
            return self._decoder.push(self._parts[-1])

    def finish(self) -> Pcm:
        with self._encoding():
            self._parts.append(self._encoder.finish())
        with self._decoding():
            rest = np.concatenate([self._decoder.push(self._parts[-1]), self._decoder.finish()], axis=1)
        self.tokens = CodecTokens.concat(self._parts)
        self.bits = self.tokens.bits
        return rest


class OfflineRoundtrip(Roundtrip):
    """Roundtrip of a system that takes whole signals: all work is done at the end."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        super().__init__(sample_rate)
        self._chunks: list[Pcm] = [np.zeros((channels, 0), np.float32)]

    def push(self, pcm: Pcm) -> Pcm:
        self._chunks.append(pcm)
        return pcm[:, :0]

    def finish(self) -> Pcm:
        pcm = np.concatenate(self._chunks, axis=1)
        self._chunks.clear()
        return self.run(pcm)

    @abstractmethod
    def run(self, pcm: Pcm) -> Pcm:
        """Encode and decode a whole signal `(channels, samples)`."""


class OfflineCodecRoundtrip(OfflineRoundtrip):
    """Roundtrip through a codec's `encode` and `decode`."""

    def __init__(self, codec: DynCodecProvider, channels: int, bandwidth: float | None) -> None:
        super().__init__(codec.sample_rate, channels)
        self._codec, self._bandwidth = codec, bandwidth

    def run(self, pcm: Pcm) -> Pcm:
        with self._encoding():
            self.tokens = self._codec.backend.encode(pcm, self.sample_rate, bandwidth=self._bandwidth)
        self.bits = self.tokens.bits
        with self._decoding():
            return self._codec.decode(self.tokens)


class OpusRoundtrip(OfflineRoundtrip):
    """Roundtrip through libopus, at a bitrate in kbps for all channels together."""

    def __init__(self, sample_rate: int, channels: int, kbps: float) -> None:
        super().__init__(sample_rate, channels)
        self._kbps = kbps

    def run(self, pcm: Pcm) -> Pcm:
        result = opus.roundtrip(pcm, self.sample_rate, self._kbps)
        self.encode_seconds, self.decode_seconds = result.encode_seconds, result.decode_seconds
        self.bits, self.file_bits = result.bits, result.file_bits
        return result.pcm


def codec_roundtrip(codec: DynCodecProvider, channels: int, bandwidth: float | None) -> Roundtrip:
    """Roundtrip through a codec, in sessions if it has them."""
    try:
        return StreamingRoundtrip(codec, channels, bandwidth)
    except NotYetImplemented:
        return OfflineCodecRoundtrip(codec, channels, bandwidth)


def warm_up(codec: DynCodecProvider, bandwidth: float | None = None) -> None:
    """Load a codec and run a second of silence, so that the first recording is not timed with what is done once."""
    codec.load()
    silence = np.zeros((codec.channels, codec.sample_rate), np.float32)
    codec.decode(codec.encode(silence, codec.sample_rate, bandwidth=bandwidth))
