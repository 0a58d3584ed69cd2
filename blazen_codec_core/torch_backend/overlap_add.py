"""Overlap-add of decoded segments."""

from __future__ import annotations

import torch
from torch import Tensor

from ..specs import Segment


class OverlapAdd:
    """Overlap-add of decoded segments, with a linear crossfade where they overlap.

    The windows are triangular, highest in the middle of a segment, and divided by their sum (Défossez et al. 2022, "High Fidelity
    Neural Audio Compression"). Outside the overlap the output is the segment itself.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._window: Tensor | None = None
        self._tail: Tensor | None = None

    def push(self, segment: Tensor) -> Tensor:
        """Add the next segment, `(channels, samples)`; return the samples that no later segment overlaps."""
        stride = self._segment.stride
        if self._window is None or self._tail is None:  # for the first segment's length, even if that is not full
            position = torch.linspace(0, 1, segment.shape[1] + 2, dtype=torch.float32, device="cpu")[1:-1]
            self._window = (0.5 - (position - 0.5).abs()).to(segment.device)
            self._tail = segment[:, :0]
        overlap = min(self._tail.shape[1], segment.shape[1])
        if overlap:
            rising, falling = self._window[:overlap], self._window[stride : stride + overlap]
            faded = (self._tail[:, :overlap] * falling + segment[:, :overlap] * rising) / (rising + falling)
            segment = torch.cat([faded, segment[:, overlap:], self._tail[:, overlap:]], dim=1)
        self._tail = segment[:, stride:].clone()
        return segment[:, :stride]

    def finish(self) -> Tensor:
        """Return the remaining samples."""
        assert self._tail is not None, "push a segment first"
        return self._tail
