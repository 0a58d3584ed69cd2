"""Functions of one value, inside kernels. A sine is a polynomial after Cody and Waite's reduction of the argument, as in the
loops for CPUs: that of the library has a branch for large arguments, which costs registers.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .. import epilogue

NONE, SNAKE, ELU = (tl.constexpr(kind) for kind in (epilogue.NONE, epilogue.SNAKE, epilogue.ELU))

_PER_PI, _PI_HIGH, _PI_LOW = (tl.constexpr(value) for value in (1 / math.pi, 3.140625, math.pi - 3.140625))
_LARGEST = tl.constexpr(math.pi * math.pi / 4)
_S3, _S5, _S7, _S9, _S11 = (tl.constexpr((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9, 11))
_ROUND = tl.constexpr(12582912.0)
"""1.5 * 2 ** 23, added to a float32 and taken away again, leaves the nearest whole number."""


@triton.jit
def sine_squared(x):  # type: ignore[no-untyped-def]
    turns = (x * _PER_PI + _ROUND) - _ROUND
    x = (x - turns * _PI_HIGH) - turns * _PI_LOW
    u = tl.minimum(x * x, _LARGEST)
    s = 1.0 + u * (_S3 + u * (_S5 + u * (_S7 + u * (_S9 + u * _S11))))
    return u * s * s


@triton.jit
def function_of(x, alpha, inverse, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """A pointwise layer's value, in float32."""
    if KIND == SNAKE:
        x = x + sine_squared(x * alpha) * inverse
    if KIND == ELU:
        x = tl.where(x > 0, x, exponential_less_one(tl.minimum(x, 0.0)))
    return x


@triton.jit
def finished(  # type: ignore[no-untyped-def]
    value, frame, channel, there, exists, alpha, inverse, scale, KIND: tl.constexpr, SCALE: tl.constexpr
):
    """A factor a frame and a function, of values of these frames and channels where they are there and exist."""
    if SCALE:
        value *= tl.load(scale + frame, mask=there, other=0.0).to(tl.float32)
    if KIND != NONE:
        one = tl.load(alpha + channel, mask=exists, other=0.0)
        value = function_of(value, one, tl.load(inverse + channel, mask=exists, other=0.0), KIND)
    return value


@triton.jit
def exponential_less_one(x):  # type: ignore[no-untyped-def]
    """Compute exp(x) - 1 for values that are not positive.

    Near zero it is a series, where the exponential would lose the digits that count.
    """
    near = x * (1 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.008333334 + x * 0.0013888889)))))
    return tl.where(x > -0.3, near, tl.exp(x) - 1)


@triton.jit
def to_tf32(x):  # type: ignore[no-untyped-def]
    """The nearest float32 that has no more digits than TF32."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
