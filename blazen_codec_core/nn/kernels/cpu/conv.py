"""Selection of the convolution algorithm on CPUs."""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor

from ..aten.conv import Conv1dKernel, LengthDispatch
from ..epilogue import NOTHING, Epilogue, FusedConv1d
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform
from .depthwise_conv import Depthwise
from .direct_conv import Blocks
from .kn2row_conv import Kn2rowConv1d
from .packing import suits_products
from .simd import LANES
from .winograd_conv import WinogradConv1d

_HEAVY, _MANY = 1 << 20, 1 << 23
"""Weights that are so many that reading more of them takes as long as multiplying, and longer."""


_BRIEF = 96
"""Frames that are so few that reading weights takes longer than multiplying."""


class _Filters(NamedTuple):
    """Winograd transforms for one number of taps.

    Attributes:
        few: Channels that are too few for sums over points to cost little beside products.
        careful: For what tokens depend on.
        rough: For what they do not.
        heavy: In place of both, where there are so many weights that reading them counts.
    """

    few: int
    careful: WinogradTransform
    rough: WinogradTransform
    heavy: WinogradTransform | None = None


_FILTERS = {
    2: _Filters(48, F_5_2, F_5_2, F_3_2),
    3: _Filters(24, F_4_3, F_4_3),
    7: _Filters(24, F_8_7, F_8_7_FAST),
}


def convolution(
    weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1, groups: int = 1, *, careful: bool = True
) -> Conv1dKernel | None:
    """The fastest way for a shape, whatever the signal's length, if there is one here.

    Args:
        weight: `(kernel, in / groups, out)`.
        groups: 1, or as many as channels, in and out.
        careful: It rounds about as little as a plain sum.
    """
    kernel, channels, out = weight.shape
    if not suits_products(weight):
        return None
    if out % LANES:
        return Kn2rowConv1d(weight, bias, dilation) if stride == groups == 1 < kernel and out < LANES <= channels else None
    if groups > 1:
        return Depthwise(weight[:, 0], bias, dilation)
    taps = kernel // stride
    if taps in _FILTERS and kernel % stride == 0 and 1 in {stride, dilation} and (size := weight.numel()) < _MANY:
        own, joined = _FILTERS[taps], weight.reshape(taps, stride * channels, out)
        if min(joined.shape[1:]) > own.few:
            filter = own.careful if careful else own.rough
            if size < _HEAVY:
                return WinogradConv1d(filter, joined, bias, dilation)
            by_points = WinogradConv1d(own.heavy or filter, joined, bias, dilation)
            return _ByLength(by_points, Blocks(weight, bias, stride, dilation), _BRIEF)
    return Blocks(weight, bias, stride, dilation)


class _ByLength(LengthDispatch, FusedConv1d):
    any_length = True

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        return cast(FusedConv1d, self.way(frames))(x, frames, after)
