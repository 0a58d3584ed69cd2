"""Explicit resampling with soxr."""

from __future__ import annotations

import numpy as np
import soxr

from ..validation import Pcm, check_audio, check_rate


class Resampler:
    """Streaming resampler (soxr HQ), whose output does not depend on the chunks."""

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream = None
        if check_rate(source_rate) != check_rate(target_rate):
            self._stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality="HQ")

    def push(self, pcm: Pcm, *, last: bool = False) -> Pcm:
        """Resample a chunk `(channels, samples)`; return the samples that are ready."""
        if self._stream is None:
            return np.ascontiguousarray(pcm)
        out = self._stream.resample_chunk(np.ascontiguousarray(pcm.T), last=last)
        return np.ascontiguousarray(out.reshape(-1, self._channels).T, dtype=np.float32)

    def finish(self) -> Pcm:
        """End the signal and return the last samples."""
        return self.push(np.zeros((self._channels, 0), np.float32), last=True)


def resample(pcm: Pcm, source_rate: int, target_rate: int) -> Pcm:
    """Resample a whole signal `(channels, samples)`.

    Raises:
        InvalidInput: The audio or a rate is invalid.
    """
    pcm = check_audio(pcm)
    resampler = Resampler(source_rate, target_rate, pcm.shape[0])
    return np.concatenate([resampler.push(pcm), resampler.finish()], axis=1)
