"""Round trips to compare: a codec in sessions, a codec that takes the audio whole, Opus."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import NotYetImplemented
from ..evaluation import opus
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from ..validation import Pcm


class Way(ABC):
    """There and back for one signal, at one rate.

    Attributes:
        sample_rate: That it takes, in hertz.
        encode_seconds, decode_seconds: Of work so far.
        bits: That the coded signal has, once it has ended.
        tokens: Of it, once it has ended, where there are any.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.encode_seconds = self.decode_seconds = self.bits = 0.0
        self.tokens: CodecTokens | None = None

    @abstractmethod
    def push(self, pcm: Pcm) -> Pcm:
        """The next samples, `(channels, samples)`; those that are back, often fewer or none."""

    @abstractmethod
    def finish(self) -> Pcm:
        """Ends the signal; the rest, so that in all there are as many as went in."""

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


class StreamingRoundtrip(Way):
    """Through a codec's sessions: tokens are decoded as soon as they are there.

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


class OfflineRoundtrip(Way):
    """Roundtrip of a system that works on whole signals only: all work is done at the end."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        super().__init__(sample_rate)
        self._pieces: list[Pcm] = [np.zeros((channels, 0), np.float32)]

    def push(self, pcm: Pcm) -> Pcm:
        self._pieces.append(pcm)
        return pcm[:, :0]

    def finish(self) -> Pcm:
        whole = np.concatenate(self._pieces, axis=1)
        self._pieces.clear()
        return self._whole(whole)

    @abstractmethod
    def _whole(self, pcm: Pcm) -> Pcm: ...


class Whole(OfflineRoundtrip):
    """Through a codec that has no sessions."""

    def __init__(self, codec: DynCodecProvider, channels: int, bandwidth: float | None) -> None:
        super().__init__(codec.sample_rate, channels)
        self._codec, self._bandwidth = codec, bandwidth

    def _whole(self, pcm: Pcm) -> Pcm:
        with self._encoding():
            self.tokens = self._codec.encode(pcm, self.sample_rate, bandwidth=self._bandwidth)
        self.bits = self.tokens.bits
        with self._decoding():
            return self._codec.decode(self.tokens)


class Opus(OfflineRoundtrip):
    """Through libopus, at a bitrate in kbps for all channels together."""

    def __init__(self, sample_rate: int, channels: int, kbps: float) -> None:
        super().__init__(sample_rate, channels)
        self._kbps = kbps

    def _whole(self, pcm: Pcm) -> Pcm:
        coded = opus.roundtrip(pcm, self.sample_rate, self._kbps)
        self.encode_seconds, self.decode_seconds, self.bits = coded.encode_seconds, coded.decode_seconds, coded.bits
        return coded.pcm


def through(codec: DynCodecProvider, channels: int, bandwidth: float | None) -> Way:
    """Through a codec, in sessions where it has them."""
    try:
        return StreamingRoundtrip(codec, channels, bandwidth)
    except NotYetImplemented:
        return Whole(codec, channels, bandwidth)
