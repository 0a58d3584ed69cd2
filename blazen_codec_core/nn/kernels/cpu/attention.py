"""Causal attention over a ring buffer.

A few queries share what they load: all keys and values of a head fit into L2, and a query costs as much as reading them. The sums
of each are taken in the order of the slots, with zeros for those that it does not see. So they depend on its position, and not on
how many are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ..interface import RING_SLACK, AttentionProblem
from . import arguments, vecmath
from .arguments import AttentionArgs, AttentionShape, ring_args, signal_args, signature
from .jit import inline_jit, jit, variant
from .microkernel import address, array, float64_array, int64_array, is_available
from .simd import INDEX, LANES, CountedLoop, Vector, address_of, intrinsic_from

QUERIES = RING_SLACK + 1
"""Queries that are computed together, for which keys and values are loaded once."""
_WIDTH = 4 if LANES == 16 else 2
"""Vectors of a tile of products; with as many queries, its sums fill the registers."""


STEPS = 64
"""Positions whose rotations are in a table; the others are those of a multiple of it, turned further."""


def _products(mr: int, nr: int) -> Any:
    """Numba intrinsic that computes a tile of `mr` rows and `nr` vectors of the product of two matrices.

    It is called with `(a, a_row, count, b, b_row, out, out_row)`: addresses, and values from one row to the next. It computes
    `out[r, c] = sum over k of a[r, k] * b[k, c]`, in the order of k.
    """

    def emit(builder: Any, a: Any, a_row: Any, count: Any, b: Any, b_row: Any, out: Any, out_row: Any) -> None:
        a, b, out = (address_of(builder, value) for value in (a, b, out))
        rows = [builder.mul(a_row, INDEX(r)) for r in range(mr)]
        loop = CountedLoop(builder, count, [a, b, *[Vector.splat(builder, 0.0).value] * (mr * nr)])
        a, b, *sums = loop.phis
        columns = [Vector.load(builder, builder.gep(b, [INDEX(v * LANES)])) for v in range(nr)]
        totals = []
        for r in range(mr):
            factor = Vector.broadcast_load(builder, builder.gep(a, [rows[r]]))
            totals += [factor.fma(columns[v], Vector(builder, sums[r * nr + v])).value for v in range(nr)]
        _, _, *sums = loop.advance([builder.gep(a, [INDEX(1)]), builder.gep(b, [b_row]), *totals])
        for r in range(mr):
            for v in range(nr):
                pointer = builder.add(builder.mul(out_row, INDEX(r)), INDEX(v * LANES))
                Vector(builder, sums[r * nr + v]).store(builder.gep(out, [pointer]))

    return intrinsic_from(emit)


def _row_products(mr: int) -> Any:
    """`_products` of `mr` rows and any number of vectors, the last argument."""
    wide, narrow = _products(mr, _WIDTH), _products(mr, 1)

    @njit
    @variant(mr)
    def products(a, a_row, count, b, b_row, out, out_row, vectors):  # type: ignore[no-untyped-def]
        v = 0
        while v < vectors:
            source, target = b + 4 * v * LANES, out + 4 * v * LANES
            if vectors - v >= _WIDTH:
                wide(a, a_row, count, source, b_row, target, out_row)
                v += _WIDTH
            else:
                narrow(a, a_row, count, source, b_row, target, out_row)
                v += 1

    return products


_products_4, _products_2, _products_1 = map(_row_products, (QUERIES, 2, 1))


@njit
def _multiply(rows, a, a_row, count, b, b_row, out, out_row, vectors):  # type: ignore[no-untyped-def]
    """`_row_products` of `QUERIES` rows, two or one."""
    if rows == QUERIES:
        _products_4(a, a_row, count, b, b_row, out, out_row, vectors)
    elif rows == 2:
        _products_2(a, a_row, count, b, b_row, out, out_row, vectors)
    else:
        _products_1(a, a_row, count, b, b_row, out, out_row, vectors)


def _folded(vector: Vector, combine: Callable[[Vector, Vector], Vector]) -> Vector:
    """Combination of all lanes, half by half, in a vector of one lane."""
    while vector.lanes > 1:
        vector = combine(*vector.halves())
    return vector


def _emit_softmax(builder: Any, values: Any, count: Any, total: Any) -> None:
    values, total = (address_of(builder, value) for value in (values, total))
    loop = CountedLoop(builder, count, [values, Vector.splat(builder, float("-inf")).value])
    pointer, largest = loop.phis
    largest = Vector.load(builder, pointer).maximum(Vector(builder, largest))
    _, largest = loop.advance([builder.gep(pointer, [INDEX(LANES)]), largest.value])
    _folded(Vector(builder, largest), Vector.maximum).store(total)
    maximum = Vector.broadcast_load(builder, total)
    loop = CountedLoop(builder, count, [values, Vector.splat(builder, 0.0).value])
    pointer, sums = loop.phis
    weight = vecmath.exp(Vector.load(builder, pointer) - maximum)
    weight.store(pointer)
    _, sums = loop.advance([builder.gep(pointer, [INDEX(LANES)]), (Vector(builder, sums) + weight).value])
    _folded(Vector(builder, sums), Vector.__add__).store(total)


_softmax = intrinsic_from(_emit_softmax)
"""`(values, count, total)`: replaces `count` vectors by the exponentials of their differences to the largest value, and stores
the sum of these at `total`."""


@inline_jit
def _rotate(x, cos, sin, scale, out):  # type: ignore[no-untyped-def]
    """Turn the pairs of channels of a head, and scale them."""
    half = cos.size
    for i in range(half):
        first, second = x[i] * scale, x[half + i] * scale
        out[i], out[half + i] = first * cos[i] - second * sin[i], second * cos[i] + first * sin[i]


@jit(signature(AttentionShape, AttentionArgs))
def _attend(shape: Any, signals: Any) -> None:
    s, a = AttentionShape(*shape), AttentionArgs(*signals)
    half, channels, capacity = s.head_channels // 2, s.head_channels, s.capacity
    frequencies, scale = float64_array(s.frequencies, (half,)), np.float32(1 / math.sqrt(channels))
    positions, ring = int64_array(a.position, (a.batch,)), s.kv_heads * channels * capacity
    cos, sin = np.empty((QUERIES, half), np.float32), np.empty((QUERIES, half), np.float32)
    query, scores = np.empty((QUERIES, channels), np.float32), np.empty((QUERIES, capacity), np.float32)
    sums, turned = np.empty(QUERIES, np.float32), np.empty((QUERIES, channels), np.float32)
    table, far, far_cos, far_sin = float64_array(s.table, (2, STEPS, half)), np.int64(-1), np.empty(half), np.empty(half)
    for number in range(a.batch):
        keys = array(a.keys + 4 * number * ring, (s.kv_heads, channels, capacity))
        values = array(a.values + 4 * number * ring, (s.kv_heads, capacity, channels))
        qkv = array(a.qkv + 4 * number * a.qkv_batch, (a.frames, s.heads + 2 * s.kv_heads, channels))
        out = array(a.out + 4 * number * a.frames * s.heads * channels, (a.frames, s.heads, channels))
        t = 0
        while t < a.frames:
            position, rows = positions[number] + t, QUERIES
            while rows > a.frames - t:
                rows //= 2
            for r in range(rows):
                if (position + r) // STEPS != far:
                    far = (position + r) // STEPS
                    for i in range(half):
                        angle = np.float64(far * STEPS) * frequencies[i]
                        far_cos[i], far_sin[i] = math.cos(angle), math.sin(angle)
                near = (position + r) % STEPS
                for i in range(half):
                    cos[r, i] = far_cos[i] * table[0, near, i] - far_sin[i] * table[1, near, i]
                    sin[r, i] = far_sin[i] * table[0, near, i] + far_cos[i] * table[1, near, i]
            for head in range(s.kv_heads):
                for r in range(rows):
                    _rotate(qkv[t + r, s.heads + head], cos[r], sin[r], np.float32(1), turned[r])
                    for i in range(channels):
                        values[head, (position + r) % capacity, i] = qkv[t + r, s.heads + s.kv_heads + head, i]
                for i in range(channels):
                    for r in range(rows):
                        keys[head, i, (position + r) % capacity] = turned[r, i]
            oldest, newest = max(0, position - s.context + 1), position + rows - 1
            start, end = 0, capacity  # slots that any of these queries sees, in whole vectors
            if oldest // capacity == newest // capacity:
                start, end = oldest % capacity // LANES * LANES, (newest % capacity // LANES + 1) * LANES
            for head in range(s.heads):
                shared = head * s.kv_heads // s.heads
                for r in range(rows):
                    _rotate(qkv[t + r, head], cos[r], sin[r], scale, query[r])
                source, target = address(keys[shared, 0, start:]), address(scores[0, start:])
                _multiply(rows, address(query), channels, channels, source, capacity, target, capacity, (end - start) // LANES)
                for r in range(rows):
                    first, slot = max(0, position + r - s.context + 1) % capacity, (position + r) % capacity
                    for unseen in range(slot + 1, first if first > slot else end):
                        scores[r, unseen] = -np.inf
                    for unseen in range(start, start if first > slot else first):
                        scores[r, unseen] = -np.inf
                    _softmax(address(scores[r, start:]), (end - start) // LANES, address(sums[r:]))
                row, source = address(out[t, head]), address(values[shared, start])
                weights, stride = address(scores[0, start:]), s.heads * channels
                _multiply(rows, weights, capacity, end - start, source, channels, row, stride, channels // LANES)
                for r in range(rows):
                    for i in range(channels):
                        out[t + r, head, i] /= sums[r]
            t += rows


def supports(problem: AttentionProblem, dtype: torch.dtype) -> bool:
    """Tell whether the channels of a head are whole vectors of float32."""
    return is_available() and dtype == torch.float32 and problem.head_channels % LANES == 0


class RingAttention:
    """Attention of float32 signals on a CPU; see `interface.AttentionKernel`.

    The output of a position is the same to the bit, however many are computed at once, and whatever the other signals are.
    """

    def __init__(self, problem: AttentionProblem) -> None:
        p = self.problem = problem
        angles = np.arange(STEPS)[:, None] * p.frequencies
        self._frequencies, self._table = (
            torch.from_numpy(p.frequencies),
            torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)])),
        )
        sizes = (p.heads, p.kv_heads, p.head_channels, p.context, p.capacity)
        self._shape = tuple(AttentionShape(*sizes, self._frequencies.data_ptr(), self._table.data_ptr()))
        self._attend = _attend.compiled()

    def __deepcopy__(self, memo: dict[int, Any]) -> RingAttention:
        return self

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        p = self.problem
        source, stride, batch, frames, _ = signal_args(qkv, channels=p.channels + 2 * p.kv_channels)
        rings = ring_args(keys, values, position, batch, (p.kv_heads, p.head_channels, p.capacity))
        out = arguments.allocate(batch, frames, p.channels)
        self._attend(self._shape, tuple(AttentionArgs(batch, frames, source, stride, *rings, out.data_ptr())))
        return out
