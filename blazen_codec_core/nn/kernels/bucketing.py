"""Bucketed lengths: the last chunk of a signal runs at one of a few lengths.

oneDNN caches a primitive for each shape. Building one takes as long as some convolutions, and the cache grows by hundreds of
megabytes; bucketed lengths are few.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .interface import Conv1dKernel

BUCKET_BITS = 3
"""Significant bits of a bucketed length."""


def run_bucketed(kernel: Conv1dKernel, x: Tensor, frames: int, stride: int) -> Tensor:
    """Run a kernel on the last chunk of a signal, zero-padded to a bucketed length, and cut the output to `frames`."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or not getattr(kernel, "needs_bucketing", True):
        return kernel(x, frames)
    padding = -frames % (1 << max(0, frames.bit_length() - BUCKET_BITS))
    if not padding:
        return kernel(x, frames)
    return kernel(F.pad(x, (0, 0, 0, padding * stride)), frames + padding)[:, :frames]


def power_of_two_chunks(x: Tensor) -> list[Tensor]:
    """Split a signal into chunks whose lengths are powers of two, longest first: `run_bucketed` for recurrent layers."""
    frames = x.shape[1]
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return [x]
    return list(torch.split(x, [1 << bit for bit in reversed(range(frames.bit_length())) if frames >> bit & 1], dim=1))
