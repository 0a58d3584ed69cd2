"""Norms over the channels of each frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from ..memory_format import frame_contiguous
from . import arguments
from .arguments import ChannelNormArgs, Packed, Signal, signal_args, signature
from .group_norm import SUM_WIDTH, block_sums, variance
from .jit import jit
from .microkernel import array
from .packing import bias_or_zeros


@jit(signature(Signal, ChannelNormArgs, float, Signal))
def _normalize(signal: Any, norm: Any, epsilon: Any, output: Any) -> None:
    x, n, y = Signal(*signal), ChannelNormArgs(*norm), Signal(*output)
    weight, bias = array(n.weight, (x.channels,)), array(n.bias, (x.channels,))
    lanes = np.empty((2, SUM_WIDTH), np.float32)
    for number in range(x.batch):
        src = array(x.address + 4 * number * x.batch_stride, (x.frames, x.channels))
        dst = array(y.address + 4 * number * y.batch_stride, (y.frames, y.channels))
        for t in range(x.frames):
            total, square = block_sums(src[t], lanes)
            mean, mean_square = total / x.channels, square / x.channels
            if not n.is_centered:
                mean = 0.0
            deviation = math.sqrt((variance(src[t], mean, mean_square) if n.is_centered else mean_square) + epsilon)
            factor, middle = np.float32(1 / deviation), np.float32(mean)
            for c in range(x.channels):
                dst[t, c] = (src[t, c] - middle) * factor * weight[c] + bias[c]


class ChannelNorm:
    """Normalization of each frame over its channels; see `interface.KernelBackend.channel_norm`.

    Args:
        weight: `(channels,)`.
        bias: `(channels,)`; without it, the mean is not subtracted.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> None:
        self._packed, self._channels, self._epsilon = Packed(weight, bias_or_zeros(bias, weight)), len(weight), epsilon
        self._norm = tuple(ChannelNormArgs(int(bias is not None), *self._packed.addresses))
        self._normalize = _normalize.compiled()

    def __call__(self, x: Tensor) -> Tensor:
        x = x if x.is_contiguous() else frame_contiguous(x)
        source = signal_args(x, channels=self._channels)
        y = arguments.allocate(x.shape)
        self._normalize(source, self._norm, self._epsilon, signal_args(y))
        return y
