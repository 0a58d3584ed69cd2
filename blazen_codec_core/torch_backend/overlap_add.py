"""Overlap-add of decoded segments."""

from __future__ import annotations

import numpy as np
import torch

from ..specs import Segment
from ..validation import Pcm


class OverlapAdd:
    """Overlap-add of decoded segments, with a linear crossfade where they overlap.

    The windows are triangular, highest in the middle of a segment, and divided by their sum (Défossez et al. 2022, "High Fidelity
    Neural Audio Compression"). Outside the overlap the output is the segment itself.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._window: Pcm | None = None
        self._tail = np.zeros((1, 0), np.float32)

    def push(self, segment: Pcm) -> Pcm:
        """Add the next segment, which is overwritten; return the samples that no later segment overlaps."""
        stride = self._segment.stride
        if self._window is None:  # for the first segment's length, even if that is not full
            position = torch.linspace(0, 1, segment.shape[1] + 2, dtype=torch.float32)[1:-1]
            self._window = (0.5 - (position - 0.5).abs()).numpy()
            self._tail = segment[:, :0]
        overlap = min(self._tail.shape[1], segment.shape[1])
        if overlap:
            rising, falling = self._window[:overlap], self._window[stride : stride + overlap]
            segment[:, :overlap] = (self._tail[:, :overlap] * falling + segment[:, :overlap] * rising) / (rising + falling)
            if overlap < self._tail.shape[1]:
                segment = np.concatenate([segment, self._tail[:, overlap:]], axis=1)
        self._tail = segment[:, stride:].copy()
        return segment[:, :stride]

    def finish(self) -> Pcm:
        """Return the remaining samples."""
        return self._tail
