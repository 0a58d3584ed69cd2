"""The blocks of convolutional codecs with Snake activations (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved
RVQGAN"; with depthwise convolutions, Siuzdak et al. 2024, "SNAC: Multi-Scale Neural Audio Codec").

Without padding (`padded=False`) each gives only what its windows cover, and less than it was given: for signals of which a
piece was cut out with context around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .activation import Snake
from .base import Layer, Residual, Sequential
from .conv import Conv1d, ConvTranspose1d
from .padding import Crop

DILATIONS = (1, 3, 9)
KERNEL = 7


def residual_unit(channels: int, dilation: int, *, depthwise: bool = False, padded: bool = True) -> Residual:
    """A dilated convolution and a pointwise one, around which the signal passes."""
    reach = (KERNEL - 1) * dilation // 2
    groups = channels if depthwise else 1
    branch = [
        Snake(channels),
        Conv1d(channels, channels, KERNEL, dilation=dilation, padding=reach if padded else 0, groups=groups),
        Snake(channels),
        Conv1d(channels, channels, 1, gain=0.3),
    ]
    return Residual(channels, Sequential(branch), shortcut=None if padded else Crop(channels, reach, reach))


def residual_units(channels: int, *, depthwise: bool = False, padded: bool = True) -> list[Residual]:
    return [residual_unit(channels, dilation, depthwise=depthwise, padded=padded) for dilation in DILATIONS]


def downsampling(channels: int, stride: int, *, depthwise: bool = False) -> Sequential:
    """`channels` to twice as many, at a rate `stride` times lower."""
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
    after: Sequence[Layer] = (),
    depthwise: bool = False,
    padded: bool = True,
) -> Sequential:
    """`channels` to half as many, at a rate `stride` times higher.

    Args:
        crop: Of the transposed convolution, where the block is padded.
        after: What follows that convolution.
    """
    out = channels // 2
    transposed = ConvTranspose1d(channels, out, 2 * stride, stride=stride, crop=crop if padded else (0, 0))
    return Sequential([Snake(channels), transposed, *after, *residual_units(out, depthwise=depthwise, padded=padded)])
