"""Selection of the convolution algorithm on CPUs."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, cast

from torch import Tensor

from ....forks import Anew
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
    if groups > 1:
        return DepthwiseConv1d(weight[:, 0], bias, dilation) if out >= LANES else None
    if 2 * out <= LANES:  # most of a vector would be empty
        return Kn2rowConv1d(weight, bias, dilation) if stride == 1 < kernel and 2 * channels > LANES else None
    if out % LANES:
        return DirectConv1d(weight, bias, stride, dilation)
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
            transform = transforms.bandwidth_bound or transform
            return LengthDispatch(DirectConv1d(weight, bias, stride, dilation), transform, bias, dilation, stride)
    return DirectConv1d(weight, bias, stride, dilation)


class LengthDispatch(FusedConv1d):
    """Winograd for signals of at least `_MIN_WINOGRAD_FRAMES` frames, direct for others.

    The transformed weight is made when the first long signal comes, from the direct kernel's. Where it holds every tap, the
    direct kernel reads it too from then on, and its own weight is freed.
    """

    needs_bucketing = False

    def __init__(
        self, short: DirectConv1d, transform: WinogradTransform, bias: Tensor | None, dilation: int, stride: int
    ) -> None:
        self._short, self._long = short, cast(WinogradConv1d | None, None)
        self._setup = transform, bias, dilation, stride
        self._lock = Anew(threading.Lock)
        WinogradConv1d.compiled()

    def __deepcopy__(self, memo: dict[int, Any]) -> LengthDispatch:
        return self

    def weights(self) -> tuple[Tensor, ...]:
        return self._short.weights()

    def kernel_for(self, frames: int) -> FusedConv1d:
        """The kernel that runs for `frames` output frames."""
        if frames < _MIN_WINOGRAD_FRAMES:
            return self._short
        return self._long or self._transform()

    def _transform(self) -> WinogradConv1d:
        """Make the kernel for long signals, once."""
        with self._lock.own:
            if self._long is None:
                transform, bias, dilation, stride = self._setup
                (weight,) = self._short.weights()
                strided = weight.reshape(weight.shape[0] // stride, -1, weight.shape[2])
                winograd = WinogradConv1d(transform, strided, bias, dilation, stride, holds_weights=False)
                self._short = winograd.direct() or self._short
                self._long = winograd
            return self._long

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        return self.kernel_for(frames)(x, frames, epilogue)
