"""A recording there and back as it was: at its own rate, with its own channels, of its own length."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..audio import Resampler
from ..evaluation.roundtrip import Roundtrip
from ..tokens.tokens import CodecTokens, Source
from ..transcode import ChannelMap, OutputAligner
from ..validation import Pcm


class AlignedRoundtrip:
    """A recording on its way, piece by piece. What comes out is aligned with what goes in, and in the end as long.

    Args:
        way: What it goes through, made for `channels.count`.
        sample_rate: Of the recording, in hertz.
        channels: How those of the recording are made to suit the way.
    """

    def __init__(self, roundtrip: Roundtrip, sample_rate: int, channels: ChannelMap) -> None:
        self.roundtrip, self.sample_rate, self._channels = roundtrip, sample_rate, channels
        self._there = Resampler(sample_rate, roundtrip.sample_rate, channels.count)
        self._back = OutputAligner(roundtrip.sample_rate, sample_rate, ChannelMap(channels.count, channels.copied, 1))
        self._read = 0

    def push(self, pcm: Pcm) -> Pcm:
        """The next samples, `(channels, samples)`; those that are back, often fewer or none."""
        self._read += pcm.shape[1]
        return self._back.push(self.roundtrip.push(self._there.push(self._channels(pcm))), self._read)

    def finish(self) -> Pcm:
        """Ends the recording; the rest of it."""
        made = [
            self._back.push(piece, self._read) for piece in (self.roundtrip.push(self._there.finish()), self.roundtrip.finish())
        ]
        return np.concatenate([*made, self._back.finish(self._read)], axis=1)

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed so far."""
        return self._read / self.sample_rate

    @property
    def tokens(self) -> CodecTokens | None:
        """Tokens and source of the whole recording, as from `blazen-codec encode`; `None` before it ends or without a codec."""
        tokens = self.roundtrip.tokens
        if tokens is None or (self.sample_rate == self.roundtrip.sample_rate and not self._channels.copied):
            return tokens
        return dataclasses.replace(tokens, source=Source(self.sample_rate, self._read, 1 if self._channels.copied else None))
