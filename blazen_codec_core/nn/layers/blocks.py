"""Blocks of convolutional codecs with Snake activations.

Sources: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN"; with depthwise convolutions, Siuzdak et al.
2024, "SNAC: Multi-Scale Neural Audio Codec".

Without padding (`padded=False`) the output is shorter than the input, by what the windows reach beyond it: for chunks that were
cut out with context. Causal blocks (`causal=True`) have all their padding before the signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .activation import Snake
from .base import Layer
from .containers import Residual, Sequential
from .conv import Conv1d, ConvTranspose1d
from .padding import Crop

DILATIONS = (1, 3, 9)
KERNEL = 7
Activation = Callable[[int], Layer]
"""Makes an activation for a number of channels."""


def residual_unit(
    channels: int,
    dilation: int,
    *,
    depthwise: bool = False,
    padded: bool = True,
    causal: bool = False,
    activation: Activation = Snake,
) -> Residual:
    """Residual unit: a dilated convolution, a pointwise one, and a shortcut."""
    reach = (KERNEL - 1) * dilation // 2
    groups = channels if depthwise else 1
    padding = (2 * reach, 0) if causal else (reach, reach)
    branch = [
        activation(channels),
        Conv1d(channels, channels, KERNEL, dilation=dilation, padding=padding if padded else 0, groups=groups),
        activation(channels),
        Conv1d(channels, channels, 1, gain=0.3),
    ]
    return Residual(channels, Sequential(branch), shortcut=None if padded else Crop(channels, *padding))


def residual_units(
    channels: int, *, depthwise: bool = False, padded: bool = True, causal: bool = False, activation: Activation = Snake
) -> list[Residual]:
    return [
        residual_unit(channels, dilation, depthwise=depthwise, padded=padded, causal=causal, activation=activation)
        for dilation in DILATIONS
    ]


def downsampling(channels: int, stride: int, *, depthwise: bool = False) -> Sequential:
    """Downsampling block: twice the channels at a rate `stride` times lower."""
    return Sequential(
        [
            *residual_units(channels, depthwise=depthwise),
            Snake(channels),
            Conv1d(channels, 2 * channels, 2 * stride, stride=stride, padding=math.ceil(stride / 2)),
        ]
    )


def upsampling(
    channels: int,
    stride: int,
    *,
    crop: tuple[int, int],
    tail_layers: Sequence[Layer] = (),
    depthwise: bool = False,
    padded: bool = True,
    causal: bool = False,
    activation: Activation = Snake,
) -> Sequential:
    """Upsampling block: half the channels at a rate `stride` times higher.

    Args:
        crop: Crop of the transposed convolution, if the block is padded.
        tail_layers: Layers after that convolution.
    """
    out = channels // 2
    transposed = ConvTranspose1d(channels, out, 2 * stride, stride=stride, crop=crop if padded else (0, 0))
    units = residual_units(out, depthwise=depthwise, padded=padded, causal=causal, activation=activation)
    return Sequential([activation(channels), transposed, *tail_layers, *units])
