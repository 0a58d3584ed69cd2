"""Convolution algorithms on PyTorch's own operations. All give the same sums; `dispatch` chooses."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ....forks import Anew


class Conv1dKernel(Protocol):
    """One way to compute a convolution with its bias. With an attribute `any_length` that is true, it does not prepare itself for
    each number of frames.
    """

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        """`(batch, (frames - 1) * stride + (kernel - 1) * dilation + 1, in)` to `(batch, frames, out)`, newly allocated."""


_precision = Anew(threading.Lock)


@contextmanager
def tf32_scope(device: torch.device, rough: bool) -> Iterator[None]:
    """While the library is called: whether TF32 will do for float32, as it does for training. It asks for that of the whole
    process, not of a call.
    """
    if device.type != "cuda" or rough or torch.is_grad_enabled():
        yield
        return
    with _precision.own, torch.backends.cudnn.flags(allow_tf32=False):
        yield


class AtenConv1d:
    """PyTorch's own."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, dilation: int, groups: int, rough: bool = False) -> None:
        self._weight, self._bias = weight.permute(2, 1, 0).contiguous(), bias
        self._stride, self._dilation, self._groups, self._rough = stride, dilation, groups, rough

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        with tf32_scope(x.device, self._rough):
            y = F.conv1d(x.transpose(1, 2), self._weight, self._bias, self._stride, 0, self._dilation, self._groups)
        return y.transpose(1, 2)


class Im2colConv1d:
    """One product, of the windows written out: for few channels in."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, dilation: int) -> None:
        self._kernel, self._stride, self._dilation, self._bias = weight.shape[0], stride, dilation, bias
        self._weight = weight.reshape(-1, weight.shape[2])

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        windows = x.unfold(1, (self._kernel - 1) * self._dilation + 1, self._stride)[..., :: self._dilation]
        return add(torch.matmul(windows.transpose(2, 3).reshape(x.shape[0], frames, -1), self._weight), self._bias)


class Kn2rowConv1d:
    """One product with all taps, whose results are then shifted and added: for few channels out."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
        self._kernel, channels, self._out = weight.shape
        self._dilation, self._bias = dilation, bias
        self._weight = weight.permute(1, 0, 2).reshape(channels, -1)

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        taps, out = torch.matmul(x, self._weight), self._out
        y = taps[:, :frames, :out]
        for j in range(1, self._kernel):
            y = y + taps[:, j * self._dilation : j * self._dilation + frames, j * out : (j + 1) * out]
        return add(y, self._bias)


class GemmPerTapConv1d:
    """`y[t] = sum_j x[t + j * dilation] @ taps[j]`, where with a stride `x[t]` is a block of so many frames.

    Args:
        taps: `(stride * in, out)` each.
    """

    def __init__(self, taps: Sequence[Tensor], bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        self._taps, self._bias, self._stride, self._dilation = tuple(taps), bias, stride, dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        batch, stride, (first, *others) = x.shape[0], self._stride, self._taps
        if stride > 1:
            x = x[:, : x.shape[1] // stride * stride].reshape(batch, -1, first.shape[0])
        if batch == 1:  # which spares the library finding out that a batch is one matrix
            alone = torch.mm(x[0, :frames], first)
            for j, tap in enumerate(others, 1):
                alone.addmm_(x[0, j * self._dilation : j * self._dilation + frames], tap)
            return add(alone.unsqueeze(0), self._bias)
        y = torch.matmul(x[:, :frames], first)
        for j, tap in enumerate(others, 1):
            y.baddbmm_(x[:, j * self._dilation : j * self._dilation + frames], tap.expand(batch, -1, -1))
        return add(y, self._bias)


class ChannelsLastConv2d:
    """The library's convolution of a picture of one line with its channels last, which is what a signal in our layout is to it.
    It has kernels that read each value of a picture once, and none that do so for signals.

    Args:
        taps: `(stride * in, out)` each, as for `GemmPerTapConv1d`; or `(channels,)`, where each channel has its own.
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


def dispatch_by_length(long: Conv1dKernel, short: Conv1dKernel, frames: float) -> Conv1dKernel:
    """`LengthDispatch`, or just one of them where it is always that one."""
    if frames <= 1:
        return long
    return short if math.isinf(frames) else LengthDispatch(long, short, frames)


class LengthDispatch:
    """One way for signals of at least so many frames, another for shorter ones."""

    def __init__(self, long: Conv1dKernel, short: Conv1dKernel, frames: float) -> None:
        self._long, self._short, self._frames = long, short, frames

    def way(self, frames: int) -> Conv1dKernel:
        return self._long if frames >= self._frames else self._short

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        return self.way(frames)(x, frames)


def add(y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    return y + bias if torch.is_grad_enabled() else y.add_(bias)
