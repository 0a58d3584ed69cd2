"""Group norm with one group over whole signals, with an accurate mean and variance."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_VALUES = 1 << 14
"""Values summed in float32 before their sum is added in float64: so few that PyTorch sums them on one thread, in one order."""


def normalize(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, *, inplace: bool) -> Tensor:
    """Normalize each signal to mean 0 and variance 1 over its frames and channels, then multiply by `weight` and add `bias`.

    Args:
        weight: `(channels,)`, as `bias`.
        inplace: `x` may be overwritten.
    """
    inplace = inplace and not torch.is_grad_enabled()
    mean, variance = var_mean(x)
    factor = (weight * torch.rsqrt(variance + epsilon)).to(x.dtype)
    offset = torch.addcmul(bias, mean.to(x.dtype), factor, value=-1)
    return torch.addcmul(offset, x, factor, out=x if inplace else None)


def var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each signal over its frames and channels, `(batch, 1, 1)`, at least in float32.

    PyTorch's own group norm loses a digit in this layout, or copies the signal. Here squares are summed in the same pass, where
    the mean is small enough for that.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        x = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
        mean = x.mean((1, 2), keepdim=True)
        return mean, (x - mean).square().mean((1, 2), keepdim=True)
    pairs = torch.tensor([_var_mean(row.reshape(-1)) for row in x], dtype=x.dtype, device=x.device).reshape(-1, 2, 1, 1)
    return pairs[:, 0:1, 0], pairs[:, 1:2, 0]


def _var_mean(values: Tensor) -> tuple[float, float]:
    total, square = _sums(values)
    mean, square = total / values.numel(), square / values.numel()
    if mean * mean > square / 2:
        blocks = torch.split(values, BLOCK_VALUES)
        return mean, sum((block - mean).square_().sum().item() for block in blocks) / values.numel()
    return mean, square - mean * mean


def _sums(values: Tensor) -> tuple[float, float]:
    """Sum of values, and sum of their squares."""
    total = square = 0.0
    for block in torch.split(values, BLOCK_VALUES):
        total += block.sum().item()
        square += block.square().sum().item()
    return total, square
