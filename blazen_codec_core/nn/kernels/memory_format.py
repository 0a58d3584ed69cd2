"""Memory formats of signals `(batch, frames, channels)`."""

from __future__ import annotations

from torch import Tensor


def is_frame_contiguous(x: Tensor) -> bool:
    """Tell whether the frames of each signal are contiguous; signals of the batch may be apart."""
    if x.is_contiguous():
        return True
    return (x.shape[2] == 1 or x.stride(2) == 1) and (x.shape[1] == 1 or x.stride(1) == x.shape[2])


def frame_contiguous(x: Tensor) -> Tensor:
    """The same signals with contiguous frames; a copy only if needed."""
    return x if is_frame_contiguous(x) else x.contiguous()
