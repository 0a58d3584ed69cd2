"""Convolution algorithms on PyTorch's own operations. All compute the same sums; `backend` chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ....forks import Anew

_tf32_lock = Anew(threading.Lock)


@contextmanager
def tf32_scope(device: torch.device, allow_tf32: bool) -> Iterator[None]:
    """Context in which cuDNN computes float32 in full precision, unless TF32 is allowed or gradients are recorded.

    The setting is that of the process, so a lock is held meanwhile.
    """
    if device.type != "cuda" or allow_tf32 or torch.is_grad_enabled():
        yield
        return
    with _tf32_lock.own, torch.backends.cudnn.flags(allow_tf32=False):
        yield


class AtenConv1d:
    """`F.conv1d`."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: int, dilation: int, groups: int, allow_tf32: bool = False
    ) -> None:
        self._weight, self._bias = weight.permute(2, 1, 0).contiguous(), bias
        self._stride, self._dilation, self._groups, self._allow_tf32 = stride, dilation, groups, allow_tf32

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        with tf32_scope(x.device, self._allow_tf32):
            y = F.conv1d(x.transpose(1, 2), self._weight, self._bias, self._stride, 0, self._dilation, self._groups)
        return y.transpose(1, 2)


class Im2colConv1d:
    """im2col and one GEMM, for few input channels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, dilation: int) -> None:
        self._kernel, self._stride, self._dilation, self._bias = weight.shape[0], stride, dilation, bias
        self._weight = weight.reshape(-1, weight.shape[2])

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        windows = x.unfold(1, (self._kernel - 1) * self._dilation + 1, self._stride)[..., :: self._dilation]
        return add_bias(torch.matmul(windows.transpose(2, 3).reshape(x.shape[0], frames, -1), self._weight), self._bias)


class Kn2rowConv1d:
    """kn2row (Vasudevan et al. 2017): one GEMM for all taps, then shift-add, for few output channels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._kernel, channels, self._out = weight.shape
        self._dilation, self._bias = dilation, bias
        self._weight = weight.permute(1, 0, 2).reshape(channels, -1)

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        taps, out = torch.matmul(x, self._weight), self._out
        y = taps[:, :frames, :out]
        for j in range(1, self._kernel):
            y = y + taps[:, j * self._dilation : j * self._dilation + frames, j * out : (j + 1) * out]
        return add_bias(y, self._bias)


class GemmConv1d:
    """A kernel of one tap as a GEMM. With stride s, `x` is viewed as blocks of s frames.

    Args:
        weight: `(stride * in, out)`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        width = self._weight.shape[0]
        blocks = x[:, : frames * (width // x.shape[2])].reshape(x.shape[0], frames, width)
        return add_bias(torch.matmul(blocks, self._weight), self._bias)


class ChannelsLastConv2d:
    """`conv1d` run as a channels-last `conv2d` of height 1.

    Our `(time, channels)` layout already is that format. For it oneDNN has single-pass kernels, and none for `conv1d`.

    Args:
        taps: `(stride * in, out)` each, where `x` is viewed as blocks of `stride` frames; or `(channels,)` each if depthwise.
        dilation: In blocks of `stride` frames.
    """

    def __init__(self, taps: Sequence[Tensor], bias: Tensor | None, dilation: int = 1) -> None:
        self._width = taps[0].shape[0]
        self._groups = self._width if taps[0].dim() == 1 else 1
        weight = torch.stack(list(taps), dim=-1)  # (in, out, kernel) or (channels, kernel)
        weight = weight[:, None] if self._groups > 1 else weight.transpose(0, 1)
        self._weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self._bias, self._dilation, self._reach = bias, dilation, (len(taps) - 1) * dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        batch, stride = x.shape[0], self._width // x.shape[2]
        blocks = x[:, : (frames + self._reach) * stride].reshape(batch, 1, -1, self._width)
        y = F.conv2d(blocks.permute(0, 3, 1, 2), self._weight, self._bias, dilation=(1, self._dilation), groups=self._groups)
        return y.permute(0, 2, 3, 1).flatten(1, 2)


class RowByRow:
    """A convolution that gives each signal of a batch what it gives by itself: PyTorch's operations round by shape."""

    def __init__(self, kernel: Callable[[Tensor, int], Tensor]) -> None:
        self.kernel = kernel

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        if x.shape[0] == 1:
            return self.kernel(x, frames)
        return torch.cat([self.kernel(row, frames) for row in torch.split(x, 1)])


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """`y + bias`, in place unless gradients are recorded."""
    if bias is None:
        return y
    return y + bias if torch.is_grad_enabled() else y.add_(bias)
