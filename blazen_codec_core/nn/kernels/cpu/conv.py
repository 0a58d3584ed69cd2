"""Selection of the convolution algorithm on CPUs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import Conv1dKernel, FusedConv1d
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform
from .depthwise_conv import DepthwiseConv1d
from .direct_conv import DirectConv1d
from .kn2row_conv import Kn2rowConv1d
from .packing import supports_gemm
from .simd import LANES
from .winograd_conv import WinogradConv1d

_BANDWIDTH_BOUND_WEIGHTS = 1 << 20
"""Weights from which reading more of them, as Winograd does, takes as long as multiplying."""
_MAX_WINOGRAD_WEIGHTS = 1 << 23
"""Weights from which reading them takes longer than multiplying, for signals of any length."""
_MIN_WINOGRAD_FRAMES = 96
"""Frames below which reading many weights takes longer than multiplying."""


class _Transforms(NamedTuple):
    """Winograd transforms F(m, r) for one number of taps r.

    Attributes:
        max_direct_channels: Up to this many channels, the transforms cost more than they save.
        accurate: For layers that tokens depend on.
        fast: For other layers.
        bandwidth_bound: In place of both, from `_BANDWIDTH_BOUND_WEIGHTS` weights.
    """

    max_direct_channels: int
    accurate: WinogradTransform
    fast: WinogradTransform
    bandwidth_bound: WinogradTransform | None = None


_TRANSFORMS = {
    2: _Transforms(48, F_5_2, F_5_2, F_3_2),
    3: _Transforms(24, F_4_3, F_4_3),
    7: _Transforms(24, F_8_7, F_8_7_FAST),
}


def select_conv1d(
    weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1, groups: int = 1, *, high_accuracy: bool = True
) -> Conv1dKernel | None:
    """Choose the fastest kernel for a shape, for signals of any length; `None` if this back end has none.

    Args:
        weight: `(kernel, in / groups, out)`.
        groups: 1, or the number of channels, in and out (depthwise).
        high_accuracy: Use algorithms that round about as little as a plain sum.
    """
    kernel, channels, out = weight.shape
    if not supports_gemm(weight):
        return None
    if out % LANES:
        return Kn2rowConv1d(weight, bias, dilation) if stride == groups == 1 < kernel and out < LANES <= channels else None
    if groups > 1:
        return DepthwiseConv1d(weight[:, 0], bias, dilation)
    taps = kernel // stride
    if (
        taps in _TRANSFORMS
        and kernel % stride == 0
        and 1 in {stride, dilation}
        and (size := weight.numel()) < _MAX_WINOGRAD_WEIGHTS
    ):
        transforms, strided = _TRANSFORMS[taps], weight.reshape(taps, stride * channels, out)
        if min(strided.shape[1:]) > transforms.max_direct_channels:
            transform = transforms.accurate if high_accuracy else transforms.fast
            if size < _BANDWIDTH_BOUND_WEIGHTS:
                return WinogradConv1d(transform, strided, bias, dilation, stride)
            winograd = WinogradConv1d(transforms.bandwidth_bound or transform, strided, bias, dilation, stride)
            return LengthDispatch(winograd, DirectConv1d(weight, bias, stride, dilation), _MIN_WINOGRAD_FRAMES)
    return DirectConv1d(weight, bias, stride, dilation)


class LengthDispatch(FusedConv1d):
    """`long` for signals of at least `min_frames` frames, `short` for others."""

    needs_bucketing = False

    def __init__(self, long: FusedConv1d, short: FusedConv1d, min_frames: int) -> None:
        self._long, self._short, self._min_frames = long, short, min_frames

    def kernel_for(self, frames: int) -> FusedConv1d:
        """The kernel that runs for `frames` output frames."""
        return self._long if frames >= self._min_frames else self._short

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        return self.kernel_for(frames)(x, frames, epilogue)
