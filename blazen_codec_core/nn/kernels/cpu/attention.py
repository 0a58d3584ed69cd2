"""Causal attention over a ring buffer, one query after the other.

All keys and values of a head fit into L2, so a query costs as much as reading them. Its sums are taken in the order of the slots,
the newer round of the ring before the older one. So they depend on the position alone, and not on how many are computed at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ..interface import AttentionProblem
from . import arguments, vecmath
from .arguments import AttentionArgs, AttentionShape, ring_args, signal_args, signature
from .jit import inline_jit, jit
from .microkernel import address, array, float64_array, int64_array, is_available
from .reductions import lane_argmax
from .simd import INDEX, LANES, CountedLoop, Vector, address_of, intrinsic_from

_WIDTHS = (4, 2, 1)
"""Vectors of a row that are computed at a time."""


def _scores(nr: int) -> Any:
    """Numba intrinsic with the products of a query and `nr` vectors of keys.

    It is called with `(query, channels, keys, stride, out)`: the channels of the keys are `stride` values apart.
    """

    def emit(builder: Any, query: Any, channels: Any, keys: Any, stride: Any, out: Any) -> None:
        query, keys, out = (address_of(builder, value) for value in (query, keys, out))
        loop = CountedLoop(builder, channels, [query, keys, *[Vector.splat(builder, 0.0).value] * nr])
        query, keys, *sums = loop.phis
        factor = Vector.broadcast_load(builder, query)
        totals = [
            factor.fma(Vector.load(builder, builder.gep(keys, [INDEX(v * LANES)])), Vector(builder, sums[v])) for v in range(nr)
        ]
        following = [builder.gep(query, [INDEX(1)]), builder.gep(keys, [stride])]
        _, _, *sums = loop.advance([*following, *(total.value for total in totals)])
        for v in range(nr):
            Vector(builder, sums[v]).store(builder.gep(out, [INDEX(v * LANES)]))

    return intrinsic_from(emit)


def _weighted_sum(nr: int) -> Any:
    """Numba intrinsic that adds the weighted sum of rows, `nr` vectors of each, to `out`.

    It is called with `(weights, count, values, stride, out)`: the rows are `stride` values apart.
    """

    def emit(builder: Any, weights: Any, count: Any, values: Any, stride: Any, out: Any) -> None:
        weights, values, out = (address_of(builder, value) for value in (weights, values, out))
        loop = CountedLoop(builder, count, [weights, values, *[Vector.splat(builder, 0.0).value] * nr])
        weights, values, *sums = loop.phis
        factor = Vector.broadcast_load(builder, weights)
        totals = [
            factor.fma(Vector.load(builder, builder.gep(values, [INDEX(v * LANES)])), Vector(builder, sums[v])) for v in range(nr)
        ]
        following = [builder.gep(weights, [INDEX(1)]), builder.gep(values, [stride])]
        _, _, *sums = loop.advance([*following, *(total.value for total in totals)])
        for v in range(nr):
            place = builder.gep(out, [INDEX(v * LANES)])
            (Vector.load(builder, place) + Vector(builder, sums[v])).store(place)

    return intrinsic_from(emit)


_scores_4, _scores_2, _scores_1 = map(_scores, _WIDTHS)
_weighted_sum_4, _weighted_sum_2, _weighted_sum_1 = map(_weighted_sum, _WIDTHS)


def _emit_exponentials(builder: Any, scores: Any, count: Any, largest: Any, sums: Any) -> None:
    maximum = Vector.broadcast_load(builder, address_of(builder, largest))
    loop = CountedLoop(builder, count, [address_of(builder, scores), Vector.splat(builder, 0.0).value])
    place, total = loop.phis
    weight = vecmath.exp(Vector.load(builder, place) - maximum)
    weight.store(place)
    _, total = loop.advance([builder.gep(place, [INDEX(LANES)]), (Vector(builder, total) + weight).value])
    Vector(builder, total).store(address_of(builder, sums))


_exponentials = intrinsic_from(_emit_exponentials)
"""`(scores, count, largest, sums)`: replaces `count` vectors by the exponentials of their differences to the value at `largest`,
and stores the sum of each lane at `sums`."""


@njit
def _score_row(query, channels, keys, stride, vectors, out):  # type: ignore[no-untyped-def]
    """Products of a query with `vectors` vectors of keys, given as addresses."""
    v = 0
    while v < vectors:
        src, dst = keys + 4 * v * LANES, out + 4 * v * LANES
        if vectors - v >= 4:
            _scores_4(query, channels, src, stride, dst)
            v += 4
        elif vectors - v >= 2:
            _scores_2(query, channels, src, stride, dst)
            v += 2
        else:
            _scores_1(query, channels, src, stride, dst)
            v += 1


@njit
def _add_values(weights, count, values, channels, out):  # type: ignore[no-untyped-def]
    """Add the weighted sum of `count` rows of values to `out`, given as addresses."""
    vectors, v = channels // LANES, 0
    while v < vectors:
        src, dst = values + 4 * v * LANES, out + 4 * v * LANES
        if vectors - v >= 4:
            _weighted_sum_4(weights, count, src, channels, dst)
            v += 4
        elif vectors - v >= 2:
            _weighted_sum_2(weights, count, src, channels, dst)
            v += 2
        else:
            _weighted_sum_1(weights, count, src, channels, dst)
            v += 1


@inline_jit
def _softmax(scores, first, end, best, best_index):  # type: ignore[no-untyped-def]
    """Replace the scores of slots `first` to `end`, whole vectors, by exponentials of at most 1; return their sum."""
    vectors, start = (end - first) // LANES, address(scores[first:])
    lane_argmax(start, vectors, address(best), address(best_index))
    for lane in range(1, LANES):
        best[0] = max(best[0], best[lane])
    _exponentials(start, vectors, address(best), address(best[LANES:]))
    total = best[LANES]
    for lane in range(1, LANES):
        total += best[LANES + lane]
    return total


@jit(signature(AttentionShape, AttentionArgs))
def _attend(shape: Any, signals: Any) -> None:
    s, a = AttentionShape(*shape), AttentionArgs(*signals)
    half, width = s.head_channels // 2, (s.heads + 2 * s.kv_heads) * s.head_channels
    frequencies, scale = float64_array(s.frequencies, (half,)), np.float32(1 / math.sqrt(s.head_channels))
    positions, ring = int64_array(a.position, (a.batch,)), s.kv_heads * s.head_channels * s.capacity
    cos, sin = np.empty(half, np.float32), np.empty(half, np.float32)
    query, scores = np.empty(s.head_channels, np.float32), np.empty(s.capacity, np.float32)
    best, best_index = np.empty(2 * LANES, np.float32), np.empty(LANES, np.int32)
    for number in range(a.batch):
        keys = array(a.keys + 4 * number * ring, (s.kv_heads, s.head_channels, s.capacity))
        values = array(a.values + 4 * number * ring, (s.kv_heads, s.capacity, s.head_channels))
        qkv = array(a.qkv + 4 * number * a.qkv_batch, (a.frames, width // s.head_channels, s.head_channels))
        out = array(a.out + 4 * number * a.frames * s.heads * s.head_channels, (a.frames, s.heads, s.head_channels))
        for t in range(a.frames):
            position = positions[number] + t
            for i in range(half):
                angle = np.float64(position) * frequencies[i]
                cos[i], sin[i] = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            slot = position % s.capacity
            for head in range(s.kv_heads):
                for i in range(half):
                    x, y = qkv[t, s.heads + head, i], qkv[t, s.heads + head, half + i]
                    keys[head, i, slot] = x * cos[i] - y * sin[i]
                    keys[head, half + i, slot] = y * cos[i] + x * sin[i]
                for i in range(s.head_channels):
                    values[head, slot, i] = qkv[t, s.heads + s.kv_heads + head, i]
            oldest = max(0, position - s.context + 1)
            first = oldest % s.capacity
            is_wrapped = first > slot
            start, end = (0, s.capacity) if is_wrapped else (first // LANES * LANES, (slot // LANES + 1) * LANES)
            for head in range(s.heads):
                shared = head * s.kv_heads // s.heads
                for i in range(half):
                    x, y = qkv[t, head, i] * scale, qkv[t, head, half + i] * scale
                    query[i], query[half + i] = x * cos[i] - y * sin[i], y * cos[i] + x * sin[i]
                source = address(keys[shared, 0, start:])
                _score_row(address(query), s.head_channels, source, s.capacity, (end - start) // LANES, address(scores[start:]))
                for unseen in range(slot + 1, first if is_wrapped else end):
                    scores[unseen] = -np.inf
                for unseen in range(start, 0 if is_wrapped else first):
                    scores[unseen] = -np.inf
                total = _softmax(scores, start, end, best, best_index)
                for i in range(s.head_channels):
                    out[t, head, i] = 0
                row, newest = address(out[t, head]), 0 if is_wrapped else first
                weights, rows = address(scores[newest:]), address(values[shared, newest])
                _add_values(weights, slot + 1 - newest, rows, s.head_channels, row)
                if is_wrapped:
                    weights, rows = address(scores[first:]), address(values[shared, first])
                    _add_values(weights, s.capacity - first, rows, s.head_channels, row)
                for i in range(s.head_channels):
                    out[t, head, i] /= total


def supports(problem: AttentionProblem, dtype: torch.dtype) -> bool:
    """Tell whether the channels of a head are whole vectors of float32."""
    return is_available() and dtype == torch.float32 and problem.head_channels % LANES == 0


class RingAttention:
    """Attention of float32 signals on a CPU; see `interface.AttentionKernel`.

    The output of a position is the same to the bit, however many are computed at once, and whatever the other signals are.
    """

    def __init__(self, problem: AttentionProblem) -> None:
        p = self.problem = problem
        self._frequencies = torch.from_numpy(p.frequencies)
        sizes = (p.heads, p.kv_heads, p.head_channels, p.context, p.capacity)
        self._shape = tuple(AttentionShape(*sizes, self._frequencies.data_ptr()))
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
