"""Roundtrip of a recording that keeps its sample rate, channels and length."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..audio import Resampler
from ..evaluation.roundtrip import Roundtrip
from ..tokens.tokens import CodecTokens, Source
from ..transcode import ChannelMap, OutputAligner
from ..validation import Pcm


class AlignedRoundtrip:
    """Roundtrip of a recording, chunk by chunk. The output is aligned with the input, and in the end as long.

    Args:
        roundtrip: Roundtrip at the system's own rate, with `channels.count` channels.
        sample_rate: Rate of the recording in hertz.
        channels: Conversion of the recording's channels to those of the roundtrip.
    """

    def __init__(self, roundtrip: Roundtrip, sample_rate: int, channels: ChannelMap) -> None:
        self.roundtrip, self.sample_rate, self._channels = roundtrip, sample_rate, channels
        self._input = Resampler(sample_rate, roundtrip.sample_rate, channels.count)
        self._output = OutputAligner(roundtrip.sample_rate, sample_rate, ChannelMap(channels.count, channels.copied, 1))
        self._pushed = 0

    def push(self, pcm: Pcm) -> Pcm:
        """Push the next samples `(channels, samples)`; return the decoded samples that are ready, often fewer or none."""
        self._pushed += pcm.shape[1]
        return self._output.push(self.roundtrip.push(self._input.push(self._channels(pcm))), self._pushed)

    def finish(self) -> Pcm:
        """End the recording and return the rest of the decoded samples."""
        chunks = [
            self._output.push(chunk, self._pushed)
            for chunk in (self.roundtrip.push(self._input.finish()), self.roundtrip.finish())
        ]
        return np.concatenate([*chunks, self._output.finish(self._pushed)], axis=1)

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed so far."""
        return self._pushed / self.sample_rate

    @property
    def tokens(self) -> CodecTokens | None:
        """Tokens and source of the whole recording, as from `blazen-codec encode`; `None` before it ends or without a codec."""
        tokens = self.roundtrip.tokens
        if tokens is None or (self.sample_rate == self.roundtrip.sample_rate and not self._channels.copied):
            return tokens
        return dataclasses.replace(tokens, source=Source(self.sample_rate, self._pushed, 1 if self._channels.copied else None))
