"""Activations, and what `filtering` adds up, as one loop each, compiled by numba: the extra `fast`. Nothing else imports numba.

As a chain of PyTorch's elementwise operations an activation passes over the signal four times. Here each value is read once and
written once. The loops run in the OpenMP threads of PyTorch's own operations, so that neither waits while the other's are still
spinning; where numba would bring threads of its own, one thread runs them.

Polynomials: Taylor's, of as many terms as float32 can tell apart after Cody and Waite's reduction of the argument
("Software Manual for the Elementary Functions", 1980). Errors are tested to be at most three roundings.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from .filtering import FAR, NEAR

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_THREADS = torch.get_num_threads()
MANY_VALUES = 1 << 14
"""Below this many, waking other threads costs more than they save."""

_f = np.float32
_i = np.int32
_PI_HIGH, _PI_LOW = _f(3.140625), _f(math.pi - 3.140625)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(math.log(2) - 0.693359375)
_ZERO, _ONE, _HALF = _f(0), _f(1), _f(0.5)
_PER_PI, _PER_LN2, _LARGEST = _f(1 / math.pi), _f(1 / math.log(2)), _f(math.pi * math.pi / 4)
_S3, _S5, _S7, _S9, _S11 = (_f((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9, 11))
_E3, _E4, _E5, _E6 = (_f(1 / math.factorial(n)) for n in (3, 4, 5, 6))
_FLAT = _f(-18)
"""From here on down `exp(x) - 1` is -1 in float32."""
_BIAS, _SHIFT = _i(127), _i(23)
"""Of the exponent in a float32."""


_NEAR, _NEAR2, _NEAR3 = (_f(NEAR**n) for n in (1, 2, 3))
_FAR, _FAR2, _FAR3 = (_f(FAR**n) for n in (1, 2, 3))
_BOTH2 = _f(NEAR**2 + FAR**2)


def _compiled(signature: str, *, parallel: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Compiles for one signature at once, or takes what an earlier process compiled."""

    def compiled(function: FunctionT) -> FunctionT:
        options = {"nogil": True, "parallel": parallel, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}
        try:
            made: FunctionT = numba.njit(signature, cache=True, **options)(function)
        except RuntimeError:  # there is no folder that a cache could be kept in
            made = numba.njit(signature, **options)(function)
        return made

    return compiled


@numba.njit(inline="always")
def _sine_squared(x):  # type: ignore[no-untyped-def]
    turns = np.rint(x * _PER_PI)
    x = (x - turns * _PI_HIGH) - turns * _PI_LOW
    u = min(x * x, _LARGEST)  # so that it stays a square of a sine where x is too large for the reduction
    s = _ONE + u * (_S3 + u * (_S5 + u * (_S7 + u * (_S9 + u * _S11))))
    return u * s * s


@numba.njit(inline="always")
def _exponential_less_one(x):  # type: ignore[no-untyped-def]
    power = np.rint(x * _PER_LN2)
    x = (x - power * _LN2_HIGH) - power * _LN2_LOW
    less_one = x + x * x * (_HALF + x * (_E3 + x * (_E4 + x * (_E5 + x * _E6))))
    factor = _i((_i(power) + _BIAS) << _SHIFT).view(np.float32)
    return factor * less_one + (factor - _ONE)


@_compiled("void(f4[:, ::1], f4[::1], f4[::1], f4[:, ::1])")
def _snake(x: Any, alpha: Any, inverse: Any, out: Any) -> None:
    for t in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[t, c] = x[t, c] + _sine_squared(x[t, c] * alpha[c]) * inverse[c]


@_compiled("void(f4[:, ::1], f4[::1], f4[::1], f4[:, ::1], i8)", parallel=True)
def _snake_in_parts(x: Any, alpha: Any, inverse: Any, out: Any, parts: int) -> None:
    frames = -(-x.shape[0] // parts)
    for part in prange(parts):
        _snake(x[part * frames : (part + 1) * frames], alpha, inverse, out[part * frames : (part + 1) * frames])


@_compiled("void(f4[::1], f4[::1])")
def _elu(x: Any, out: Any) -> None:
    for i in range(x.size):
        below = _exponential_less_one(max(min(x[i], _ZERO), _FLAT))
        out[i] = x[i] if x[i] > _ZERO else below


@_compiled("void(f4[::1], f4[::1], i8)", parallel=True)
def _elu_in_parts(x: Any, out: Any, parts: int) -> None:
    values = -(-x.size // parts)
    for part in prange(parts):
        _elu(x[part * values : (part + 1) * values], out[part * values : (part + 1) * values])


@_compiled("void(f4[:, ::1], i8, f4[:, :, ::1], i8)", parallel=True)
def _spread_in_parts(x: Any, dilation: int, out: Any, parts: int) -> None:
    rows = -(-out.shape[1] // parts)
    for part in prange(parts):
        for row in range(part * rows, min((part + 1) * rows, out.shape[1])):
            at = row // dilation * 4 * dilation + row % dilation
            x0, x1, x2 = x[at], x[at + dilation], x[at + 2 * dilation]
            x3, x4, x5 = x[at + 3 * dilation], x[at + 4 * dilation], x[at + 5 * dilation]
            # One loop for each, or they would not be compiled to vector instructions: too many places might be the same.
            for c in range(x.shape[1]):
                out[0, row, c] = x0[c] + (x4[c] - _BOTH2 * x2[c])
            for c in range(x.shape[1]):
                out[1, row, c] = (x4[c] - _FAR2 * x2[c]) + _NEAR * (x3[c] - _FAR2 * x1[c])
            for c in range(x.shape[1]):
                out[2, row, c] = (x4[c] - _FAR2 * x2[c]) - _NEAR * (x3[c] - _FAR2 * x1[c])
            for c in range(x.shape[1]):
                out[3, row, c] = (x4[c] - _NEAR2 * x2[c]) + _FAR * (x3[c] - _NEAR2 * x1[c])
            for c in range(x.shape[1]):
                out[4, row, c] = (x4[c] - _NEAR2 * x2[c]) - _FAR * (x3[c] - _NEAR2 * x1[c])
            for c in range(x.shape[1]):
                out[5, row, c] = x1[c] + (x5[c] - _BOTH2 * x3[c])


@_compiled(f"void({'f4[:, ::1], ' * 7}i8, f4[:, ::1], i8)", parallel=True)
def _gather_in_parts(m0: Any, m1: Any, m2: Any, m3: Any, m4: Any, m5: Any, plain: Any, dilation: int, y: Any, parts: int) -> None:
    rows = -(-m0.shape[0] // parts)
    for part in prange(parts):
        for row in range(part * rows, min((part + 1) * rows, m0.shape[0])):
            a, b, c, d = m1[row], m2[row], m3[row], m4[row]
            t0 = row // dilation * 4 * dilation + row % dilation
            t1, t2, t3 = t0 + dilation, t0 + 2 * dilation, t0 + 3 * dilation
            for i in range(y.shape[1]):
                y[t0, i] = plain[t0, i] + (m0[row, i] + ((a[i] + b[i]) + (c[i] + d[i])))
            for i in range(y.shape[1]):
                y[t1, i] = plain[t1, i] + (_NEAR * (a[i] - b[i]) + _FAR * (c[i] - d[i]))
            for i in range(y.shape[1]):
                y[t2, i] = plain[t2, i] + (_NEAR2 * (a[i] + b[i]) + _FAR2 * (c[i] + d[i]))
            for i in range(y.shape[1]):
                y[t3, i] = plain[t3, i] + (m5[row, i] + (_NEAR3 * (a[i] - b[i]) + _FAR3 * (c[i] - d[i])))


@functools.cache
def _threads_are_shared() -> bool:
    """Whether numba's threads are OpenMP's, which is known once they have run."""
    nothing = np.zeros(1, np.float32)
    _elu_in_parts(nothing, nothing, 1)
    return bool(numba.threading_layer() == "omp")


def _parts(x: Tensor) -> int:
    """How many threads are to work on a signal, after numba was told."""
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if threads == 1 or x.numel() < MANY_VALUES or not _threads_are_shared():
        return 1
    numba.set_num_threads(threads)
    return int(threads)


def suits(x: Tensor, out: Tensor) -> bool:
    """Whether these loops work on a signal `(batch, frames, channels)`, to another one of that shape."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and all(_rows_are_whole(each) for each in (x, out))


def _rows_are_whole(x: Tensor) -> bool:
    return x.stride(2) == 1 and x.stride(1) == x.shape[2]


def _array(x: Tensor) -> Any:
    return x.detach().numpy()


def snake(x: Tensor, alpha: Tensor, inverse: Tensor, out: Tensor) -> None:
    """`x + sin(alpha x)^2 * inverse`, the two of them `(channels,)`."""
    parts, alpha, inverse = _parts(x), _array(alpha), _array(inverse)
    for row, made in zip(_array(x), _array(out), strict=True):
        if parts > 1:
            _snake_in_parts(row, alpha, inverse, made, parts)
        else:
            _snake(row, alpha, inverse, made)


def elu(x: Tensor, out: Tensor) -> None:
    """`x` where it is positive, `exp(x) - 1` where it is not."""
    parts = _parts(x)
    for row, made in zip(_array(x), _array(out), strict=True):
        if parts > 1:
            _elu_in_parts(row.reshape(-1), made.reshape(-1), parts)
        else:
            _elu(row.reshape(-1), made.reshape(-1))


def spread(x: Tensor, dilation: int, out: Tensor) -> None:
    """`filtering.spread`, to `(6, count, channels)`."""
    _spread_in_parts(_array(x), dilation, _array(out), _parts(out))


def gather(made: Sequence[Tensor], plain: Tensor, dilation: int, y: Tensor) -> None:
    """`filtering.gather`."""
    m0, m1, m2, m3, m4, m5 = map(_array, made)
    _gather_in_parts(m0, m1, m2, m3, m4, m5, _array(plain), dilation, _array(y), _parts(y))


torch.set_num_threads(_THREADS)  # which loading a parallel loop has set to all that there are, for all of OpenMP
