"""Functions of one value, as polynomials.

Taylor's, of as many terms as float32 can tell apart after Cody and Waite's reduction of the argument ("Software Manual for the
Elementary Functions", 1980). Errors are tested to be at most three roundings.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_f = np.float32
_i = np.int32
ZERO, ONE, _TWO, _HALF = _f(0), _f(1), _f(2), _f(0.5)
_PI_HIGH, _PI_LOW = _f(3.140625), _f(math.pi - 3.140625)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(math.log(2) - 0.693359375)
_PER_PI, _PER_LN2, _LARGEST = _f(1 / math.pi), _f(1 / math.log(2)), _f(math.pi * math.pi / 4)
_S3, _S5, _S7, _S9, _S11 = (_f((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9, 11))
_E3, _E4, _E5, _E6 = (_f(1 / math.factorial(n)) for n in (3, 4, 5, 6))
FLAT = _f(-18)
"""From here on down `exp(x) - 1` is -1 in float32."""
_STEEP = _f(80)
"""From here on a sigmoid is 0 or 1 in float32, and the exponential still has a float32."""
_BIAS, _SHIFT = _i(127), _i(23)
"""Of the exponent in a float32."""


@njit(inline="always")
def sine_squared(x):  # type: ignore[no-untyped-def]
    turns = np.rint(x * _PER_PI)
    x = (x - turns * _PI_HIGH) - turns * _PI_LOW
    u = min(x * x, _LARGEST)  # so that it stays a square of a sine where x is too large for the reduction
    s = ONE + u * (_S3 + u * (_S5 + u * (_S7 + u * (_S9 + u * _S11))))
    return u * s * s


@njit(inline="always")
def exponential_less_one(x):  # type: ignore[no-untyped-def]
    power = np.rint(x * _PER_LN2)
    x = (x - power * _LN2_HIGH) - power * _LN2_LOW
    less_one = x + x * x * (_HALF + x * (_E3 + x * (_E4 + x * (_E5 + x * _E6))))
    factor = _i((_i(power) + _BIAS) << _SHIFT).view(np.float32)
    return factor * less_one + (factor - ONE)


@njit(inline="always")
def sigmoid(x):  # type: ignore[no-untyped-def]
    return ONE / (_TWO + exponential_less_one(max(min(-x, _STEEP), -_STEEP)))


@njit(inline="always")
def tanh(x):  # type: ignore[no-untyped-def]
    less_one = exponential_less_one(max(min(x + x, _STEEP), -_STEEP))
    return less_one / (_TWO + less_one)
