"""Activations as one loop each, which reads each value once and writes it once; a chain of PyTorch's elementwise operations
passes over the signal four times."""

from __future__ import annotations

from typing import Any

import torch
from numba import prange
from torch import Tensor

from .compiling import array, in_parts, part, parts_for
from .functions import FLAT, ZERO, exponential_less_one, sine_squared


@part
def _snake_of(x, alpha, inverse, out):  # type: ignore[no-untyped-def]
    for t in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[t, c] = x[t, c] + sine_squared(x[t, c] * alpha[c]) * inverse[c]


@in_parts("void(f4[:, ::1], f4[::1], f4[::1], f4[:, ::1], i8)")
def _snake(x: Any, alpha: Any, inverse: Any, out: Any, parts: int) -> None:
    frames = -(-x.shape[0] // parts)
    for number in prange(parts):
        own = slice(number * frames, (number + 1) * frames)
        _snake_of(x[own], alpha, inverse, out[own])


@part
def _elu_of(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        below = exponential_less_one(max(min(x[i], ZERO), FLAT))
        out[i] = x[i] if x[i] > ZERO else below


@in_parts("void(f4[::1], f4[::1], i8)")
def _elu(x: Any, out: Any, parts: int) -> None:
    values = -(-x.size // parts)
    for number in prange(parts):
        _elu_of(x[number * values : (number + 1) * values], out[number * values : (number + 1) * values])


def suits(x: Tensor, out: Tensor) -> bool:
    """Whether these loops work on a signal `(batch, frames, channels)`, to another one of that shape."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and all(_rows_are_whole(each) for each in (x, out))


def _rows_are_whole(x: Tensor) -> bool:
    return x.stride(2) == 1 and x.stride(1) == x.shape[2]


def snake(x: Tensor, alpha: Tensor, inverse: Tensor, out: Tensor) -> None:
    """`x + sin(alpha x)^2 * inverse`, the two of them `(channels,)`."""
    parts, alpha, inverse = parts_for(x.numel()), array(alpha), array(inverse)
    for row, made in zip(array(x), array(out), strict=True):
        _snake(row, alpha, inverse, made, parts)


def elu(x: Tensor, out: Tensor) -> None:
    """`x` where it is positive, `exp(x) - 1` where it is not."""
    parts = parts_for(x.numel())
    for row, made in zip(array(x), array(out), strict=True):
        _elu(row.reshape(-1), made.reshape(-1), parts)
