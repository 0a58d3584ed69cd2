"""Vectorized elementary functions, by range reduction and polynomials.

Arguments are reduced as by Cody and Waite ("Software Manual for the Elementary Functions", 1980). The polynomials are Taylor's,
with as many terms as float32 can tell apart; the error function is a fitted quotient. Errors are tested to be at most three
roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .simd import Vector

_PI_HIGH, _PI_LOW = 3.140625, math.pi - 3.140625
_LN2_HIGH, _LN2_LOW = 0.693359375, math.log(2) - 0.693359375
_MAX_SQUARE = math.pi * math.pi / 4
_SINE = [(-1) ** (n // 2) / math.factorial(n) for n in (1, 3, 5, 7, 9, 11)]
"""Coefficients of the odd powers."""
_EXPONENTIAL = [1 / math.factorial(n) for n in (2, 3, 4, 5, 6)]
_EXPM1_MIN = -18.0
"""At or below this, `exp(x) - 1` is -1 in float32."""
_SIGMOID_LIMIT = 80.0
"""Beyond this, a sigmoid is 0 or 1 in float32; up to it, the exponential is finite."""
_EXP_MIN = -87.0
"""Least argument of an exponential whose result is a normal float32."""
_ERF_LIMIT = 3.92
"""Beyond this, the error function is -1 or 1 in float32."""
_ERF_ABOVE = [1.12837915, 0.190402497, 0.0527482, 0.00376544545, 0.000284878693, 2.05011663e-06]
_ERF_BELOW = [1.0, 0.502072562, 0.114107472, 0.0149688758, 0.00116249345, 3.80918056e-05]
"""Coefficients of even powers: `erf(x) / x` as a quotient of polynomials, fitted to a relative error of 2e-8 up to the limit."""


def _polynomial(x: Vector, coefficients: Sequence[float]) -> Vector:
    """Evaluate a polynomial by Horner's scheme, the coefficient of the lowest power first."""
    total = x.splat_like(coefficients[-1])
    for factor in reversed(coefficients[:-1]):
        total = total.fma(x, factor)
    return total


def range_reduce(x: Vector, high: float, low: float) -> tuple[Vector, Vector]:
    """Number of the nearest multiple of `high + low`, and the remainder."""
    count = (x * (1 / (high + low))).rint()
    return count, count.fma(-low, count.fma(-high, x))


def snake(x: Vector, alpha: Vector, inverse: Vector) -> Vector:
    """`x + sin(alpha x)^2 * inverse`."""
    _, angle = range_reduce(x * alpha, _PI_HIGH, _PI_LOW)
    square = (angle * angle).minimum(_MAX_SQUARE)  # so that the sine stays in range where the angle is too large to be reduced
    sine = _polynomial(square, _SINE)
    return (square * sine * sine).fma(inverse, x)


def expm1(x: Vector) -> Vector:
    power, x = range_reduce(x, _LN2_HIGH, _LN2_LOW)
    minus_one = (x * x).fma(_polynomial(x, _EXPONENTIAL), x)
    factor = power.exp2()
    return factor.fma(minus_one, factor - 1.0)


def elu(x: Vector) -> Vector:
    """`x` where it is positive, `exp(x) - 1` where it is not."""
    return x.where_positive(expm1(x.minimum(0.0).maximum(_EXPM1_MIN)))


def sigmoid(x: Vector) -> Vector:
    return x.splat_like(1.0) / (expm1((-x).minimum(_SIGMOID_LIMIT).maximum(-_SIGMOID_LIMIT)) + 2.0)


def tanh(x: Vector) -> Vector:
    minus_one = expm1((x + x).minimum(_SIGMOID_LIMIT).maximum(-_SIGMOID_LIMIT))
    return minus_one / (minus_one + 2.0)


def exp(x: Vector) -> Vector:
    """Exponential of values that are at most 0; far below, and for minus infinity, it is 0."""
    power, rest = range_reduce(x.maximum(_EXP_MIN), _LN2_HIGH, _LN2_LOW)
    factor = power.exp2()
    return x.above(_EXP_MIN, factor.fma((rest * rest).fma(_polynomial(rest, _EXPONENTIAL), rest), factor))


def gelu(x: Vector) -> Vector:
    """`x` times the standard normal distribution function."""
    scaled = (x * math.sqrt(0.5)).minimum(_ERF_LIMIT).maximum(-_ERF_LIMIT)
    square = scaled * scaled
    erf = scaled * _polynomial(square, _ERF_ABOVE) / _polynomial(square, _ERF_BELOW)
    half = x * 0.5
    return half.fma(erf, half)
