"""Which loops compute a convolution."""

from __future__ import annotations

from torch import Tensor

from ..points import OF_THREE, OF_TWO
from ..ways import Convolution
from .blocks import Blocks
from .by_points import BlocksByPoints
from .depthwise import Depthwise
from .joined_taps import JoinedTaps
from .lanes import LANES
from .panels import suits_products

_FEW, _SOME = 48, 96
"""Channels that are too few for sums over points to cost little beside products, of three taps and of two."""
_MANY = 1 << 23
"""Weights that are so many that reading more of them takes longer than multiplying."""


def convolution(weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1, groups: int = 1) -> Convolution | None:
    """The fastest way for a shape, whatever the signal's length, if there is one here.

    Args:
        weight: `(kernel, in / groups, out)`.
        groups: 1, or as many as channels, in and out.
    """
    kernel, channels, out = weight.shape
    if not suits_products(weight):
        return None
    if out % LANES:
        return JoinedTaps(weight, bias, dilation) if stride == groups == 1 < kernel and out < LANES <= channels else None
    if groups > 1:
        return Depthwise(weight[:, 0], bias, dilation)
    if kernel == 2 * stride and dilation == 1 and min(stride * channels, out) > _SOME and weight.numel() < _MANY:
        return BlocksByPoints(OF_TWO, weight.reshape(2, stride * channels, out), bias)
    if stride == 1 and kernel % 4 == 3 and min(channels, out) > _FEW and weight.numel() < _MANY:
        return BlocksByPoints(OF_THREE, weight, bias, dilation)
    return Blocks(weight, bias, stride, dilation)
