"""How a convolution is computed. The layers choose one of these by shape and device; all give the same sums.

Matrix products on shifted views of a `(time, channels)` signal need no copy of it and run near the speed of the
machine's own matrix product; `conv1d` on a CPU does not, but is the right choice on a GPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL = 16
"""Below this many channels a product per tap is too thin; the taps are joined into one."""

MANY_VALUES = 1 << 14
"""From here on a few plain passes over memory cost less than one slow one."""
FEW_FRAMES = 8
"""Below this many, preparing the library's recurrent kernel costs more than it saves."""


def products_are_faster(x: Tensor) -> bool:
    """Whether this device runs matrix products on views faster than the library's convolution."""
    return x.device.type == "cpu"


def steps_are_faster(x: Tensor) -> bool:
    """Whether this device runs a recurrent layer over so few frames faster step by step than through the library's call."""
    return x.device.type == "cpu" and x.shape[1] < FEW_FRAMES


def dense(x: Tensor, weight: Tensor, stride: int, dilation: int, frames: int) -> Tensor:
    """A convolution over all channels.

    Args:
        x: `(batch, (frames - 1) * stride + (kernel - 1) * dilation + 1, in)`.
        weight: `(kernel, in, out)`.

    Returns:
        `(batch, frames, out)`, newly allocated.
    """
    kernel, channels, out = weight.shape
    if not products_are_faster(x) or kernel % stride or (stride > 1 and dilation > 1):
        return F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), stride=stride, dilation=dilation).transpose(1, 2)
    if channels < _SMALL and kernel > 1:
        windows = x.unfold(1, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        return torch.matmul(windows.transpose(2, 3).reshape(x.shape[0], frames, -1), weight.reshape(-1, out))
    if out < _SMALL and kernel > 1 and stride == 1:
        taps = torch.matmul(x, weight.permute(1, 0, 2).reshape(channels, -1))
        y = taps[:, :frames, :out]
        for j in range(1, kernel):
            y = y + taps[:, j * dilation : j * dilation + frames, j * out : (j + 1) * out]
        return y
    blocks = x[:, : x.shape[1] // stride * stride]
    if stride > 1:
        blocks = blocks.reshape(x.shape[0], -1, stride * channels)
        weight = weight.reshape(kernel // stride, stride * channels, out)
    return shifted_products(blocks, weight, dilation, frames)


def elu(x: Tensor) -> Tensor:
    """`exp(x) - 1` below zero, x above; the library's own takes the exponential in a slower and there needlessly exact way."""
    if x.device.type != "cpu" or x.numel() < MANY_VALUES:
        return F.elu(x)
    y = x.clamp(max=0).exp_().sub_(1)
    return torch.maximum(x, y, out=y)


def shifted_products(x: Tensor, weight: Tensor, dilation: int, frames: int) -> Tensor:
    """`y[t] = sum_j x[t + j * dilation] @ weight[j]` for `weight` of `(taps, in, out)`."""
    batch = x.shape[0]
    if batch == 1:  # which spares the library finding out that a batch is one matrix
        alone = torch.mm(x[0, :frames], weight[0])
        for j in range(1, weight.shape[0]):
            alone.addmm_(x[0, j * dilation : j * dilation + frames], weight[j])
        return alone.unsqueeze(0)
    y = torch.matmul(x[:, :frames], weight[0])
    for j in range(1, weight.shape[0]):
        y.baddbmm_(x[:, j * dilation : j * dilation + frames], weight[j].expand(batch, -1, -1))
    return y


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, frames: int) -> Tensor:
    """A convolution of each channel with its own taps; `weight` is `(kernel, channels)`."""
    if not products_are_faster(x):
        taps = weight.t().unsqueeze(1)
        y = F.conv1d(x.transpose(1, 2), taps, bias, dilation=dilation, groups=x.shape[2])
        return y.transpose(1, 2)
    first = x[:, :frames]
    y = first * weight[0] if bias is None else torch.addcmul(bias, first, weight[0])
    for j in range(1, weight.shape[0]):
        y.addcmul_(x[:, j * dilation : j * dilation + frames], weight[j])
    return y
