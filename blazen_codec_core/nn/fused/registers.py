"""Sums of products that stay in vector registers while their terms go by, as LLVM's own instructions.

What makes a product of matrices as fast as the processor is a block of sums, some rows of a signal by some vectors of channels
out, that never leaves the registers: for each term a few vectors of weights are read, and each row's value is multiplied with
all (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). Compilers do not find this in loops, so
the instructions are put together here. The terms of a row may lie anywhere in steps: a convolution needs no copy of its windows.

Each sum takes its terms one by one in their order, wherever in a block its row lies, so it is the same to the bit in any block.
It is added to what there was before only then, so that long sums taken in pieces round like short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Of a vector."""
_HEIGHTS = {
    16: {1: (24, 8, 4, 1), 2: (14, 8, 4, 1), 4: (6, 4, 2, 1)},
    8: {1: (12, 8, 4, 1), 2: (6, 4, 2, 1), 4: (3, 2, 1, 1)},
}[LANES]
"""Rows of a block, by its vectors: as many as there are registers for, then what is left of a signal."""

_FLOAT, _INDEX, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
ABREAST = 4
"""Vectors of sums that are taken side by side, so that none waits for the one before."""
_BYTE = ir.IntType(8)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ALIGNED = 4
"""Bytes that addresses are multiples of."""


_PAGE = 512
"""Values: rows that are so far apart, or a multiple, share the few lines of cache that there are for their addresses."""


def is_available() -> bool:
    """Whether this processor has vectors that blocks are made for."""
    return torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}


class _Loop:
    """`count` times, values that go round with it: `next` ends its body."""

    def __init__(self, builder: Any, count: Any, carried: list[Any]) -> None:
        self._builder, self._count = builder, count
        before, self._body = builder.block, builder.append_basic_block()
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self._round = builder.phi(_INDEX)
        self._round.add_incoming(_INDEX(0), before)
        self.carried = [builder.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, before)

    def next(self, carried: list[Any]) -> list[Any]:
        builder, end = self._builder, self._builder.block
        round = builder.add(self._round, _INDEX(1))
        self._round.add_incoming(round, end)
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, end)
        after = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", round, self._count), self._body, after)
        builder.position_at_end(after)
        return carried


def _block(rows: int, vectors: int, nearest: bool) -> Any:
    """What computes a block of so many rows and vectors.

    It is called with `(x, row, taps, tap, depth, weight, start, start_row, out, out_row, ahead)`: addresses of float32 values and
    steps between them counted in values. `out[r, o] = start[r, o] + sum over j, k of x[r * row + j * tap + k] * weight[j, k, o]`,
    with at least one tap and one value deep. Weights that are so far `ahead` are brought near on the way.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def block(
        typing: Any,
        x: Any,
        row: Any,
        taps: Any,
        tap: Any,
        depth: Any,
        weight: Any,
        start: Any,
        start_row: Any,
        out: Any,
        out_row: Any,
        ahead: Any,
    ) -> Any:
        return types.void(*[types.int64] * 11), lambda context, builder, _, arguments: _write(context, builder, arguments)

    def _write(context: Any, builder: Any, arguments: Any) -> Any:
        x, row, taps, tap, depth, weight, start, start_row, out, out_row, ahead = arguments
        x, weight, start, out = (builder.inttoptr(address, _FLOAT.as_pointer()) for address in (x, weight, start, out))
        fma = _fma(builder, _VECTOR, LANES)

        prefetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _LANE, _LANE, _LANE]), "llvm.prefetch.p0"
        )

        def at(address: Any, row: Any, number: int, vector: int) -> Any:
            place = builder.gep(address, [builder.add(builder.mul(row, _INDEX(number)), _INDEX(vector * LANES))])
            return builder.bitcast(place, _VECTOR.as_pointer())

        sums = [ir.Constant(_VECTOR, [0.0] * LANES)] * (rows * vectors)
        of_taps = _Loop(builder, taps, [x, weight, *sums])
        x, weight, *sums = of_taps.carried
        of_depth = _Loop(builder, depth, [x, weight, *sums])
        value, weight, *sums = of_depth.carried
        own = [builder.load(at(weight, _INDEX(0), 0, v), align=_ALIGNED) for v in range(vectors)]
        how = [_LANE(0), _LANE(3 if nearest else 2), _LANE(1)]  # to read; into the nearest cache or the next; data
        for v in range(vectors):
            builder.call(prefetch, [builder.bitcast(at(weight, ahead, 1, v), _BYTE.as_pointer()), *how])
        for r in range(rows):
            same = _everywhere(builder, builder.load(builder.gep(value, [builder.mul(row, _INDEX(r))])))
            for v in range(vectors):
                sums[r * vectors + v] = builder.call(fma, [same, own[v], sums[r * vectors + v]])
        value, weight = builder.gep(value, [_INDEX(1)]), builder.gep(weight, [_INDEX(vectors * LANES)])
        _, weight, *sums = of_depth.next([value, weight, *sums])
        _, _, *sums = of_taps.next([builder.gep(x, [tap]), weight, *sums])
        for r in range(rows):
            for v in range(vectors):
                before = builder.load(at(start, start_row, r, v), align=_ALIGNED)
                builder.store(builder.fadd(before, sums[r * vectors + v]), at(out, out_row, r, v), align=_ALIGNED)
        return context.get_dummy_value()

    return block


def _fma(builder: Any, vector: Any, lanes: int) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32")


def _everywhere(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, _LANE(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_LANE, LANES), [0] * LANES))


@njit
def address(values):  # type: ignore[no-untyped-def]
    """Of an array's first value."""
    return np.int64(values.ctypes.data)


def time_of_rows(count: int) -> int:
    """What so many rows of two vectors take: a block's sums take turns, of which few leave the processor waiting."""
    time = 0
    for height in _HEIGHTS[2]:
        time, count = time + count // height * max(height, 4), count % height
    return time


def _mixing(matrix: Sequence[Sequence[float]], lanes: int, add: bool) -> Any:
    """What computes a few signals out of a few others, value by value: `out[j] = sum over i of matrix[j][i] * source[i]`.

    It is called with `(source, step, out, out_step, count)`: so many vectors of `lanes`, of signals whose addresses are so many
    values apart. With `add` it adds to what there is.
    """
    vector = ir.VectorType(_FLOAT, lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def mix(typing: Any, source: Any, step: Any, out: Any, out_step: Any, count: Any) -> Any:
        return types.void(*[types.int64] * 5), lambda context, builder, _, arguments: _write(context, builder, arguments)

    def _write(context: Any, builder: Any, arguments: Any) -> Any:
        source, step, out, out_step, count = arguments
        fma = _fma(builder, vector, lanes)

        def at(address: Any, step: Any, number: int, place: Any) -> Any:
            start = builder.inttoptr(address, _FLOAT.as_pointer())
            offset = builder.add(builder.mul(step, _INDEX(number)), builder.mul(place, _INDEX(lanes)))
            return builder.bitcast(builder.gep(start, [offset]), vector.as_pointer())

        loop = _Loop(builder, count, [_INDEX(0)])
        (place,) = loop.carried
        values = [builder.load(at(source, step, i, place), align=_ALIGNED) for i in range(len(matrix[0]))]
        sums = [[(c, value) for c, value in zip(row, values, strict=True) if c] for row in matrix]
        for j, terms in enumerate(sums):
            own = at(out, out_step, j, place)
            total = builder.load(own, align=_ALIGNED) if add else ir.Constant(vector, [0.0] * lanes)
            for c, value in terms:
                total = builder.call(fma, [ir.Constant(vector, [c] * lanes), value, total])
            builder.store(total, own, align=_ALIGNED)
        loop.next([builder.add(place, _INDEX(1))])
        return context.get_dummy_value()

    return mix


def mixing(matrix: Sequence[Sequence[float]], add: bool = False) -> Any:
    """`_mixing` of signals of any number of channels, the last argument."""
    whole, single = _mixing(matrix, LANES, add), _mixing(matrix, 1, add)

    @njit
    def mix(source, step, out, out_step, channels):  # type: ignore[no-untyped-def]
        vectors, at = channels // LANES, 4 * (channels // LANES * LANES)
        if vectors:
            whole(source, step, out, out_step, vectors)
        if channels % LANES:
            single(source + at, step, out + at, out_step, channels % LANES)

    return mix


@intrinsic  # type: ignore[untyped-decorator]
def sums_of_lanes(typing: Any, values: Any, count: Any, sums: Any, squares: Any) -> Any:
    """The sum of `count` groups of `ABREAST` vectors of values, and that of their squares, for each of the group's lanes, to the
    addresses `sums` and `squares`."""
    return types.void(*[types.int64] * 4), lambda context, builder, _, arguments: _write_sums(context, builder, arguments)


def _write_sums(context: Any, builder: Any, arguments: Any) -> Any:
    values, count, *outs = (
        value if number == 1 else builder.inttoptr(value, _VECTOR.as_pointer()) for number, value in enumerate(arguments)
    )
    fma, nothing = _fma(builder, _VECTOR, LANES), ir.Constant(_VECTOR, [0.0] * LANES)
    loop = _Loop(builder, count, [values, *[nothing] * (2 * ABREAST)])
    source, *sums = loop.carried
    for v in range(ABREAST):
        own = builder.load(builder.gep(source, [_INDEX(v)]), align=_ALIGNED)
        sums[v] = builder.fadd(sums[v], own)
        sums[ABREAST + v] = builder.call(fma, [own, own, sums[ABREAST + v]])
    _, *sums = loop.next([builder.gep(source, [_INDEX(ABREAST)]), *sums])
    for number, value in enumerate(sums):
        out = outs[number // ABREAST]
        builder.store(value, builder.gep(out, [_INDEX(number % ABREAST)]), align=_ALIGNED)
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def scaled_by_lane(typing: Any, x: Any, step: Any, rows: Any, factor: Any, offset: Any) -> Any:
    """`x * factor + offset` of a vector of channels, in its place, in rows that are `step` values apart."""
    return types.void(*[types.int64] * 5), lambda context, builder, _, arguments: _write_scaled(context, builder, arguments)


def _write_scaled(context: Any, builder: Any, arguments: Any) -> Any:
    x, step, rows, factor, offset = arguments
    fma = _fma(builder, _VECTOR, LANES)
    factor, offset = (builder.load(builder.inttoptr(each, _VECTOR.as_pointer()), align=_ALIGNED) for each in (factor, offset))
    loop = _Loop(builder, rows, [builder.inttoptr(x, _FLOAT.as_pointer())])
    (place,) = loop.carried
    vector = builder.bitcast(place, _VECTOR.as_pointer())
    builder.store(builder.call(fma, [builder.load(vector, align=_ALIGNED), factor, offset]), vector, align=_ALIGNED)
    loop.next([builder.gep(place, [step])])
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def largest_of_lanes(typing: Any, values: Any, count: Any, best: Any, where: Any) -> Any:
    """For each lane the largest of `count` vectors, and which vector it is in, the first of them, to the addresses `best` and
    `where` (int32)."""
    return types.void(*[types.int64] * 4), lambda context, builder, _, arguments: _write_largest(context, builder, arguments)


def _write_largest(context: Any, builder: Any, arguments: Any) -> Any:
    values, count, best, where = arguments
    numbers = ir.VectorType(_LANE, LANES)
    lowest = ir.Constant(_VECTOR, [float("-inf")] * LANES)
    source = builder.inttoptr(values, _VECTOR.as_pointer())
    loop = _Loop(builder, count, [source, ir.Constant(numbers, [0] * LANES), lowest, ir.Constant(numbers, [0] * LANES)])
    source, number, most, place = loop.carried
    own = builder.load(source, align=_ALIGNED)
    larger = builder.fcmp_ordered(">", own, most)
    most, place = builder.select(larger, own, most), builder.select(larger, number, place)
    number = builder.add(number, ir.Constant(numbers, [1] * LANES))
    _, _, most, place = loop.next([builder.gep(source, [_INDEX(1)]), number, most, place])
    builder.store(most, builder.inttoptr(best, _VECTOR.as_pointer()), align=_ALIGNED)
    builder.store(place, builder.inttoptr(where, numbers.as_pointer()), align=_ALIGNED)
    return context.get_dummy_value()


def _any_rows(vectors: int, nearest: bool = False) -> Any:
    """The same for any number of rows, the last argument; `start` may be `out`."""
    height_0, height_1, height_2, height_3 = _HEIGHTS[vectors]
    block_0, block_1, block_2, block_3 = (_block(height, vectors, nearest) for height in _HEIGHTS[vectors])

    @njit
    def rows(x, row, taps, tap, depth, weight, start, start_row, out, out_row, ahead, count):  # type: ignore[no-untyped-def]
        at = 0
        while at < count:
            own_x, own_start, own_out = x + 4 * at * row, start + 4 * at * start_row, out + 4 * at * out_row
            if count - at >= height_0 and row % _PAGE:
                block_0(own_x, row, taps, tap, depth, weight, own_start, start_row, own_out, out_row, ahead)
                at += height_0
            elif count - at >= height_1:
                block_1(own_x, row, taps, tap, depth, weight, own_start, start_row, own_out, out_row, ahead)
                at += height_1
            elif count - at >= height_2:
                block_2(own_x, row, taps, tap, depth, weight, own_start, start_row, own_out, out_row, ahead)
                at += height_2
            else:
                block_3(own_x, row, taps, tap, depth, weight, own_start, start_row, own_out, out_row, ahead)
                at += height_3

    return rows


rows_by_one, rows_by_two, rows_by_four = _any_rows(1), _any_rows(2), _any_rows(4, nearest=True)
"""Of one, two and four vectors of channels out, whose weights `(taps * depth, vectors * LANES)` lie together."""
