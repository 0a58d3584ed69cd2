"""Vectorized elementary functions, by range reduction and polynomials.

Taylor's, of as many terms as float32 can tell apart after Cody and Waite's reduction of the argument ("Software Manual for the
Elementary Functions", 1980). Errors are tested to be at most three roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .simd import Vector

_PI_HIGH, _PI_LOW = 3.140625, math.pi - 3.140625
_LN2_HIGH, _LN2_LOW = 0.693359375, math.log(2) - 0.693359375
_LARGEST = math.pi * math.pi / 4
_SINE = [(-1) ** (n // 2) / math.factorial(n) for n in (1, 3, 5, 7, 9, 11)]
"""Of odd powers."""
_EXPONENTIAL = [1 / math.factorial(n) for n in (2, 3, 4, 5, 6)]
_FLAT = -18.0
"""From here on down `exp(x) - 1` is -1 in float32."""
_STEEP = 80.0
"""From here on a sigmoid is 0 or 1 in float32, and the exponential still has a float32."""


def _polynomial(x: Vector, factors: Sequence[float]) -> Vector:
    """Horner's scheme, the factor of the lowest power first."""
    total = x.like(factors[-1])
    for factor in reversed(factors[:-1]):
        total = total.fma(x, factor)
    return total


def _reduced(x: Vector, high: float, low: float) -> tuple[Vector, Vector]:
    """The nearest multiple of a number that is given as a sum, and what is left."""
    count = (x * (1 / (high + low))).nearest()
    return count, count.fma(-low, count.fma(-high, x))


def snake(x: Vector, alpha: Vector, inverse: Vector) -> Vector:
    """`x + sin(alpha x)^2 * inverse`."""
    _, angle = _reduced(x * alpha, _PI_HIGH, _PI_LOW)
    square = (angle * angle).minimum(_LARGEST)  # so that it stays one of a sine where the angle is too large for the reduction
    sine = _polynomial(square, _SINE)
    return (square * sine * sine).fma(inverse, x)


def _exponential_less_one(x: Vector) -> Vector:
    power, x = _reduced(x, _LN2_HIGH, _LN2_LOW)
    less_one = (x * x).fma(_polynomial(x, _EXPONENTIAL), x)
    factor = power.exp2()
    return factor.fma(less_one, factor - 1.0)


def elu(x: Vector) -> Vector:
    """`x` where it is positive, `exp(x) - 1` where it is not."""
    return x.where_positive(_exponential_less_one(x.minimum(0.0).maximum(_FLAT)))


def sigmoid(x: Vector) -> Vector:
    return x.like(1.0) / (_exponential_less_one((-x).minimum(_STEEP).maximum(-_STEEP)) + 2.0)


def tanh(x: Vector) -> Vector:
    less_one = _exponential_less_one((x + x).minimum(_STEEP).maximum(-_STEEP))
    return less_one / (less_one + 2.0)
