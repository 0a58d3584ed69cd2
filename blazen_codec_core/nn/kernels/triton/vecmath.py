"""Elementary functions inside kernels.

A sine is a polynomial after Cody and Waite's range reduction, as in `cpu.vecmath`. Triton's own branches for large arguments,
which costs registers.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .. import epilogue

NONE, SNAKE, ELU, GELU, SILU, GAIN = (
    tl.constexpr(getattr(epilogue, activation)) for activation in ("NONE", "SNAKE", "ELU", "GELU", "SILU", "GAIN")
)

_PER_PI, _PI_HIGH, _PI_LOW = (tl.constexpr(value) for value in (1 / math.pi, 3.140625, math.pi - 3.140625))
_LARGEST = tl.constexpr(math.pi * math.pi / 4)
_S3, _S5, _S7, _S9, _S11 = (tl.constexpr((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9, 11))
_C2, _C4, _C6, _C8, _C10 = (tl.constexpr((-1) ** (n // 2) / math.factorial(n)) for n in (2, 4, 6, 8, 10))
_HALF_PI = tl.constexpr(math.pi / 2)
_SQRT_HALF = tl.constexpr(math.sqrt(0.5))
_ROUND = tl.constexpr(12582912.0)
"""1.5 * 2 ** 23: adding it to a float32 and subtracting it again rounds to the nearest integer."""


@triton.jit
def sine_squared(x):  # type: ignore[no-untyped-def]
    periods = (x * _PER_PI + _ROUND) - _ROUND
    x = (x - periods * _PI_HIGH) - periods * _PI_LOW
    u = tl.minimum(x * x, _LARGEST)
    s = 1.0 + u * (_S3 + u * (_S5 + u * (_S7 + u * (_S9 + u * _S11))))
    return u * s * s


@triton.jit
def cosine_sine(positions, quarter_turns):  # type: ignore[no-untyped-def]
    """Cosines and sines, in float32, of angles of any size: products of two float64, in quarter turns."""
    positions, quarter_turns = tl.broadcast(positions, quarter_turns)
    nearest = tl.floor(tl.fma(positions, quarter_turns, tl.full(positions.shape, 0.5, tl.float64)))
    x = (tl.fma(positions, quarter_turns, -nearest) * _HALF_PI).to(tl.float32)
    u = x * x
    c = 1.0 + u * (_C2 + u * (_C4 + u * (_C6 + u * (_C8 + u * _C10))))
    s = x * (1.0 + u * (_S3 + u * (_S5 + u * (_S7 + u * (_S9 + u * _S11)))))
    quadrant = nearest.to(tl.int64) & 3
    is_odd = (quadrant & 1) == 1
    cos, sin = tl.where(is_odd, s, c), tl.where(is_odd, c, s)
    return tl.where((quadrant == 1) | (quadrant == 2), -cos, cos), tl.where(quadrant >= 2, -sin, sin)


@triton.jit
def activate(x, alpha, inverse, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Apply an activation, in float32."""
    if ACTIVATION == SNAKE:
        x = x + sine_squared(x * alpha) * inverse
    if ACTIVATION == ELU:
        x = tl.where(x > 0, x, expm1(tl.minimum(x, 0.0)))
    if ACTIVATION == GELU:
        x = 0.5 * x * (1 + tl.erf(x * _SQRT_HALF))
    if ACTIVATION == SILU:
        x = x / (1 + tl.exp(-x))
    if ACTIVATION == GAIN:
        x = x * alpha
    return x


@triton.jit
def apply_epilogue(  # type: ignore[no-untyped-def]
    value, frame, channel, valid, col_valid, alpha, inverse, scale, ACTIVATION: tl.constexpr, SCALE: tl.constexpr
):
    """Scale and activation of an epilogue, for values of these frames and channels where they are valid."""
    if SCALE:
        value *= tl.load(scale + frame, mask=valid, other=0.0).to(tl.float32)
    if ACTIVATION != NONE:
        alpha_c = tl.load(alpha + channel, mask=col_valid, other=0.0)
        value = activate(value, alpha_c, tl.load(inverse + channel, mask=col_valid, other=0.0), ACTIVATION)
    return value


@triton.jit
def expm1(x):  # type: ignore[no-untyped-def]
    """Compute exp(x) - 1 for x <= 0; near zero by a series, where the difference would lose digits."""
    near = x * (1 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.008333334 + x * 0.0013888889)))))
    return tl.where(x > -0.3, near, tl.exp(x) - 1)


@triton.jit
def to_tf32(x):  # type: ignore[no-untyped-def]
    """Round to the nearest value of TF32."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def float32_product(a, b, TF32X3: tl.constexpr):  # type: ignore[no-untyped-def]
    """Product of float32 matrices in 3xTF32 (see `gemm_conv`), or in TF32, which holds the values of half types."""
    high_a, high_b = to_tf32(a), to_tf32(b)
    if TF32X3:
        product = tl.dot(a - high_a, high_b, input_precision="tf32")
        product = tl.dot(high_a, b - high_b, product, input_precision="tf32")
        return tl.dot(high_a, high_b, product, input_precision="tf32")
    return tl.dot(high_a, high_b, input_precision="tf32")
