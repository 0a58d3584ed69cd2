"""Activations, what `filtering` adds up, and recurrence, as one loop each, compiled by numba: the extra `fast`. Nothing else
imports numba.

As a chain of PyTorch's elementwise operations an activation passes over the signal four times. Here each value is read once and
written once. A recurrent layer reads all its weights for every frame; here it does so once for up to four signals, and in turn
forwards and backwards, so that it begins with those that are still in cache.

The loops run in the OpenMP threads of PyTorch's own operations, so that neither waits while the other's are still spinning; where
numba would bring threads of its own, one thread runs them.

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
LANES = 16
"""Channels of a recurrent layer that are worked on together."""
_GATES = 4 * LANES
_ABREAST = 256
"""Sums that are taken side by side, before they are added in double precision."""
_ROWS = 4
"""Signals that share a reading of a recurrent layer's weights."""

_f = np.float32
_i = np.int32
_PI_HIGH, _PI_LOW = _f(3.140625), _f(math.pi - 3.140625)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(math.log(2) - 0.693359375)
_ZERO, _ONE, _TWO, _HALF = _f(0), _f(1), _f(2), _f(0.5)
_PER_PI, _PER_LN2, _LARGEST = _f(1 / math.pi), _f(1 / math.log(2)), _f(math.pi * math.pi / 4)
_S3, _S5, _S7, _S9, _S11 = (_f((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9, 11))
_E3, _E4, _E5, _E6 = (_f(1 / math.factorial(n)) for n in (3, 4, 5, 6))
_FLAT = _f(-18)
"""From here on down `exp(x) - 1` is -1 in float32."""
_STEEP = _f(80)
"""From here on a sigmoid is 0 or 1 in float32, and the exponential still has a float32."""
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


@numba.njit(inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return _ONE / (_TWO + _exponential_less_one(max(min(-x, _STEEP), -_STEEP)))


@numba.njit(inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    less_one = _exponential_less_one(max(min(x + x, _STEEP), -_STEEP))
    return less_one / (_TWO + less_one)


@_compiled("void(f4[::1], f4[:, :, ::1], f4[:, ::1])")
def _add_product(sums: Any, weight: Any, h: Any) -> None:
    for j in range(weight.shape[0]):
        h0, h1, h2, h3 = h[j, 0], h[j, 1], h[j, 2], h[j, 3]
        for i in range(_GATES):
            sums[i] = sums[i] + (h0 * weight[j, 0, i] + h1 * weight[j, 1, i] + h2 * weight[j, 2, i] + h3 * weight[j, 3, i])


@_compiled("void(f4[:, ::1], f4[:, :, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1])")
def _add_four_products(sums: Any, weight: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    for j in range(weight.shape[0]):
        a0, a1, a2, a3 = a[j, 0], a[j, 1], a[j, 2], a[j, 3]
        b0, b1, b2, b3 = b[j, 0], b[j, 1], b[j, 2], b[j, 3]
        c0, c1, c2, c3 = c[j, 0], c[j, 1], c[j, 2], c[j, 3]
        d0, d1, d2, d3 = d[j, 0], d[j, 1], d[j, 2], d[j, 3]
        for i in range(_GATES):
            w0, w1, w2, w3 = weight[j, 0, i], weight[j, 1, i], weight[j, 2, i], weight[j, 3, i]
            sums[0, i] = sums[0, i] + (a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3)
            sums[1, i] = sums[1, i] + (b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3)
            sums[2, i] = sums[2, i] + (c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3)
            sums[3, i] = sums[3, i] + (d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3)


@_compiled("void(f4[::1], f4[::1], f4[::1])")
def _remember(gates: Any, cell: Any, out: Any) -> None:
    for i in range(LANES):
        entry, forget, new = _sigmoid(gates[i]), _sigmoid(gates[LANES + i]), _tanh(gates[2 * LANES + i])
        c = forget * cell[i] + entry * new
        cell[i] = c
        out[i] = _sigmoid(gates[3 * LANES + i]) * _tanh(c)


@_compiled("void(f4[:, :, :, :, ::1], f4[:, :, :, ::1], f4[:, :, :, ::1], f4[:, :, ::1], f4[:, :, ::1], i8)", parallel=True)
def _recur_in_parts(gates: Any, weight: Any, h: Any, cell: Any, scratch: Any, parts: int) -> None:
    rows, blocks = cell.shape[:2]
    share = -(-blocks // parts)
    for t in range(gates.shape[1]):
        for part in prange(parts):
            first, end, sums = part * share, min(blocks, (part + 1) * share), scratch[part]
            for place in range(end - first):
                block = first + place if t % 2 else end - 1 - place
                lanes = slice(block * LANES, (block + 1) * LANES)
                for row in range(0, rows, _ROWS):
                    count = min(_ROWS, rows - row)
                    for r in range(count):
                        for gate in range(4):
                            for i in range(LANES):
                                sums[r, gate * LANES + i] = gates[row + r, t, gate, block, i]
                    if count == _ROWS:
                        _add_four_products(sums, weight[block], h[row, t], h[row + 1, t], h[row + 2, t], h[row + 3, t])
                    else:
                        for r in range(count):
                            _add_product(sums[r], weight[block], h[row + r, t])
                    for r in range(count):
                        _remember(sums[r], cell[row + r, block], h[row + r, t + 1].reshape(-1)[lanes])


@_compiled("void(f4[:, :, ::1], f4[:, :, ::1], f8[:, ::1], i8)", parallel=True)
def _sum_in_parts(blocks: Any, scratch: Any, made: Any, parts: int) -> None:
    share = -(-blocks.shape[0] // parts)
    for part in prange(parts):
        total, square = scratch[part, 0], scratch[part, 1]
        for block in range(part * share, min((part + 1) * share, blocks.shape[0])):
            total[:] = _ZERO
            square[:] = _ZERO
            for row in range(blocks.shape[1]):
                for i in range(_ABREAST):
                    total[i] = total[i] + blocks[block, row, i]
                    square[i] = square[i] + blocks[block, row, i] * blocks[block, row, i]
            made[block, 0] = made[block, 1] = 0.0
            for i in range(_ABREAST):
                made[block, 0] += total[i]
                made[block, 1] += square[i]


@functools.cache
def _threads_are_shared() -> bool:
    """Whether numba's threads are OpenMP's, which is known once they have run."""
    nothing = np.zeros(1, np.float32)
    _elu_in_parts(nothing, nothing, 1)
    return bool(numba.threading_layer() == "omp")


def _parts(x: Tensor) -> int:
    """How many threads are to work on so many values, after numba was told."""
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


def sums(values: Tensor, block: int) -> tuple[float, float]:
    """The sum of values `(count,)`, and that of their squares; `count` is a multiple of `block`, a power of two of at least 256.
    That is how many are summed in single precision, whatever the number of threads."""
    parts = _parts(values)
    made, scratch = torch.empty(values.numel() // block, 2, dtype=torch.float64), torch.empty(parts, 2, _ABREAST)
    _sum_in_parts(_array(values).reshape(-1, block // _ABREAST, _ABREAST), _array(scratch), _array(made), parts)
    total, square = made.sum(0).tolist()
    return total, square


def suits_recurrence(weight: Tensor) -> bool:
    """Whether a layer with this recurrent weight `(4 * channels, channels)` can run here."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.shape[1] % LANES == 0


def in_blocks(weight: Tensor) -> Tensor:
    """The recurrent weight of an LSTM `(4 * channels, channels)` in the order in which `recur` reads it."""
    channels = weight.shape[1]
    ordered = weight.reshape(4, channels // LANES, LANES, channels).permute(1, 3, 0, 2)
    return ordered.reshape(channels // LANES, channels // 4, 4, _GATES).contiguous()


def recur(gates: Tensor, weight: Tensor, cell: Tensor, outputs: Tensor) -> None:
    """An LSTM's frames one after the other, for several signals; the sums of one do not depend on the others.

    Args:
        gates: The input's share of the gates, bias included, `(rows, frames, 4 * channels)`.
        weight: From `in_blocks`.
        cell: `(rows, channels)`, before the first frame; becomes that after the last.
        outputs: `(rows, 1 + frames, channels)`, of which the first is the one before.
    """
    (rows, frames, _), channels, parts = gates.shape, cell.shape[1], _parts(weight)
    blocks = channels // LANES
    sums = torch.empty(parts, _ROWS, _GATES)  # PyTorch's memory begins with a line of cache, which vectors need to be fast
    _recur_in_parts(
        _array(gates).reshape(rows, frames, 4, blocks, LANES),
        _array(weight),
        _array(outputs).reshape(rows, 1 + frames, channels // 4, 4),
        _array(cell).reshape(rows, blocks, LANES),
        _array(sums),
        parts,
    )


torch.set_num_threads(_THREADS)  # which loading a parallel loop has set to all that there are, for all of OpenMP
