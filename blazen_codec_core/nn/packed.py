"""Products with weights that were brought once into the order in which the library reads them.

A plain matrix product brings both factors into such an order every time. Where the weight is large and the signal short that
takes as long as the product; and where the signal is long and has few channels, adding the bias afterwards does. The operators
are those that PyTorch's compiler calls, of oneDNN.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


class PackedProduct:
    """A convolution of float32 signals on a CPU as one product, all taps of a window side by side; see `kernels.Convolution`.

    Args:
        weight: `(kernel, in, out)`, copied.
        stride: The kernel is a whole number of strides, and more than 1 only where `dilation` is 1.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int = 1, dilation: int = 1) -> None:
        kernel, channels, out = weight.shape
        self._taps, self._channels, self._dilation = kernel // stride, stride * channels, dilation
        self._bias = None if bias is None else bias.detach()
        pack, self._product = _operators()
        self._weight: Tensor = pack(weight.detach().reshape(-1, out).t().contiguous())

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        batch, taps, d = x.shape[0], range(self._taps), self._dilation
        blocks = x[:, : (frames + (self._taps - 1) * d) * self._channels // x.shape[2]].reshape(batch, -1, self._channels)
        windows = torch.cat([blocks[:, j * d : j * d + frames] for j in taps], 2) if self._taps > 1 else blocks
        y: Tensor = self._product(windows, self._weight, self._bias, "none", [], "")
        return y


def _operators() -> tuple[Any, Any]:
    """What packs a weight, and what multiplies with it; neither is part of PyTorch's public interface."""
    return torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise


@functools.cache
def is_available() -> bool:
    """Whether this PyTorch has the operators, and they do what they are expected to."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.no_grad():
        try:
            y = PackedProduct(torch.ones(2, 16, 8), torch.ones(8))(torch.ones(1, 4, 16), 3)
        except (AttributeError, RuntimeError, TypeError):  # another release may lack them, or want other arguments
            return False
        return y.shape == (1, 3, 8) and bool((y == 33).all())
