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
from numba import njit
from numba.core import cgutils
from numpy.typing import NDArray

from .simd import ALIGNED, INDEX, LANE, LANES, Loop, Vector, address_of, vector_of, written

_HEIGHTS = {
    16: {1: (24, 8, 4, 1), 2: (14, 8, 4, 1), 4: (6, 4, 2, 1)},
    8: {1: (12, 8, 4, 1), 2: (6, 4, 2, 1), 4: (3, 2, 1, 1)},
}[LANES]
"""Rows of a block, by its vectors: as many as there are registers for, then what is left of a signal."""
ABREAST = 4
"""Vectors of sums that are taken side by side, so that none waits for the one before."""
_BYTE = ir.IntType(8)
_PAGE = 512
"""Values: rows that are so far apart, or a multiple, share the few lines of cache that there are for their addresses."""


def is_available() -> bool:
    """Tell whether this processor has vectors that blocks are made for."""
    return torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}


def _block(rows: int, vectors: int, nearest: bool, alone: bool) -> Any:
    """Microkernel as a numba intrinsic: it computes a block of `rows` rows and `vectors` vectors.

    It is called with `(x, row, taps, tap, depth, weight, start, start_row, out, out_row, ahead)`: addresses of float32 values and
    steps between them counted in values. `out[r, o] = start[r, o] + sum over j, k of x[r * row + j * tap + k] * weight[j, k, o]`,
    with at least one tap and one value deep. Weights that lie `ahead` values on are prefetched. If channels are
    `alone`, each has a filter of its own: the sum is that over j of `x[r * row + j * tap + o] * weight[j, o]`.
    """

    def write(
        builder: Any,
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
    ) -> None:
        x, weight, start, out = (address_of(builder, address) for address in (x, weight, start, out))

        def at(address: Any, row: Any, number: int, vector: int) -> Any:
            return builder.gep(address, [builder.add(builder.mul(row, INDEX(number)), INDEX(vector * LANES))])

        def values(sums: list[Vector]) -> list[Any]:
            return [own.value for own in sums]

        sums = [Vector.number(builder, 0.0)] * (rows * vectors)
        filter_transform = Loop(builder, taps, [x, weight, *values(sums)])
        x, weight, *carried = filter_transform.carried
        of_depth = Loop(builder, depth, [x, weight, *carried])
        value, weight, *carried = of_depth.carried
        sums = [Vector(builder, own) for own in carried]
        own = [Vector.load(builder, at(weight, INDEX(0), 0, v)) for v in range(vectors)]
        for v in range(vectors):
            _bring(builder, at(weight, ahead, 1, v), nearest)
        for r in range(rows):
            factor = (Vector.load if alone else Vector.broadcast_load)(builder, at(value, row, r, 0))
            for v in range(vectors):
                sums[r * vectors + v] = factor.fma(own[v], sums[r * vectors + v])
        value, weight = builder.gep(value, [INDEX(1)]), builder.gep(weight, [INDEX(vectors * LANES)])
        _, weight, *carried = of_depth.next([value, weight, *values(sums)])
        filter_transform.next([builder.gep(x, [tap]), weight, *carried])
        for r in range(rows):
            for v in range(vectors):
                before = Vector.load(builder, at(start, start_row, r, v))
                (before + sums[r * vectors + v]).store(at(out, out_row, r, v))

    return written(write)


def _bring(builder: Any, address: Any, nearest: bool) -> None:
    """Prefetch the value at an address into the nearest cache, or else into the next."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, LANE, LANE, LANE])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.bitcast(address, byte), LANE(0), LANE(3 if nearest else 2), LANE(1)])


@njit
def address(values):  # type: ignore[no-untyped-def]
    """Address of an array's first value."""
    return np.int64(values.ctypes.data)


def estimated_cost(count: int) -> int:
    """Estimated cost of `count` rows of two vectors; a block of fewer than four rows costs as much as one of four."""
    time = 0
    for height in _HEIGHTS[2]:
        time, count = time + count // height * max(height, 4), count % height
    return time


def _mixing(stages: Sequence[NDArray[np.float64]], lanes: int, from_start: bool) -> Any:
    """Numba intrinsic that applies matrices one after the other to a few signals, value by value.

    For each matrix `out[j] = sum over i of matrix[j][i] * source[i]`, and `out` is the next one's source.

    It is called with `(source, step, start, start_step, out, out_step, count)`: `count` vectors of `lanes` values,
    of signals whose addresses are `step` values apart. The last sums may begin `from_start`, which may be `out`.
    """

    def write(builder: Any, source: Any, step: Any, start: Any, start_step: Any, out: Any, out_step: Any, count: Any) -> None:
        def at(address: Any, step: Any, number: int, place: Any) -> Any:
            offset = builder.add(builder.mul(step, INDEX(number)), builder.mul(place, INDEX(lanes)))
            return builder.gep(address_of(builder, address), [offset])

        def mixed(values: list[Vector], factors: NDArray[np.float64], total: Vector | None = None) -> Vector:
            for factor, value in zip(factors.tolist(), values, strict=True):
                if factor:
                    total = value * factor if total is None else value.fma(factor, total)
            assert total is not None
            return total

        loop = Loop(builder, count, [INDEX(0)])
        (place,) = loop.carried
        values = [Vector.load(builder, at(source, step, i, place), lanes) for i in range(stages[0].shape[1])]
        for stage in stages[:-1]:
            values = [mixed(values, factors) for factors in stage]
        for j, factors in enumerate(stages[-1]):
            before = Vector.load(builder, at(start, start_step, j, place), lanes) if from_start else None
            mixed(values, factors, before).store(at(out, out_step, j, place))
        loop.next([builder.add(place, INDEX(1))])

    return written(write)


def mixing(stages: Sequence[NDArray[np.float64]], *, from_start: bool) -> Any:
    """`_mixing` of signals of any number of channels, the last argument."""
    many, single = _mixing(stages, LANES, from_start), _mixing(stages, 1, from_start)

    @njit
    def mix(source, step, start, start_step, out, out_step, channels):  # type: ignore[no-untyped-def]
        vectors, at = channels // LANES, 4 * (channels // LANES * LANES)
        if vectors:
            many(source, step, start, start_step, out, out_step, vectors)
        if channels % LANES:
            single(source + at, step, start + at, start_step, out + at, out_step, channels % LANES)

    return mix


def _sums_of_lanes(builder: Any, values: Any, count: Any, sums: Any, squares: Any) -> None:
    values, sums, squares = (address_of(builder, address) for address in (values, sums, squares))
    loop = Loop(builder, count, [values, *[Vector.number(builder, 0.0).value] * (2 * ABREAST)])
    source, *carried = loop.carried
    total = [Vector(builder, value) for value in carried]
    for v in range(ABREAST):
        own = Vector.load(builder, builder.gep(source, [INDEX(v * LANES)]))
        total[v], total[ABREAST + v] = total[v] + own, own.fma(own, total[ABREAST + v])
    loop.next([builder.gep(source, [INDEX(ABREAST * LANES)]), *(own.value for own in total)])
    for v in range(ABREAST):
        total[v].store(builder.gep(sums, [INDEX(v * LANES)]))
        total[ABREAST + v].store(builder.gep(squares, [INDEX(v * LANES)]))


lane_sums = written(_sums_of_lanes)
"""`(values, count, sums, squares)`: the sum of `count` groups of `ABREAST` vectors of values, and that of their squares, for each
of the group's lanes, to the addresses `sums` and `squares`."""


def _scaled_by_lane(builder: Any, x: Any, step: Any, rows: Any, factor: Any, offset: Any) -> None:
    own_factor, own_offset = (Vector.load(builder, address_of(builder, each)) for each in (factor, offset))
    loop = Loop(builder, rows, [address_of(builder, x)])
    (place,) = loop.carried
    Vector.load(builder, place).fma(own_factor, own_offset).store(place)
    loop.next([builder.gep(place, [step])])


affine_inplace = written(_scaled_by_lane)
"""`(x, step, rows, factor, offset)`: `x * factor + offset` of a vector of channels, in its place, in rows that are `step` values
apart."""


def _largest_of_lanes(builder: Any, values: Any, count: Any, best: Any, where: Any) -> None:
    numbers = vector_of(LANES, LANE)
    zero, one = (ir.Constant(numbers, [number] * LANES) for number in (0, 1))
    lowest = Vector.number(builder, float("-inf"))
    loop = Loop(builder, count, [address_of(builder, values), zero, lowest.value, zero])
    source, number, most, place = loop.carried
    own = Vector.load(builder, source).value
    larger = builder.fcmp_ordered(">", own, most)
    most, place = builder.select(larger, own, most), builder.select(larger, number, place)
    loop.next([builder.gep(source, [INDEX(LANES)]), builder.add(number, one), most, place])
    Vector(builder, most).store(address_of(builder, best))
    builder.store(place, builder.inttoptr(where, numbers.as_pointer()), align=ALIGNED)


lane_argmax = written(_largest_of_lanes)
"""`(values, count, best, where)`: for each lane the largest of `count` vectors, and which vector it is in, the first of them, to
the addresses `best` and `where` (int32)."""


def _any_rows(vectors: int, *, nearest: bool = False, alone: bool = False) -> Any:
    """The same for any number of rows, the last argument; `start` may be `out`."""
    height_0, height_1, height_2, height_3 = _HEIGHTS[vectors]
    block_0, block_1, block_2, block_3 = (_block(height, vectors, nearest, alone) for height in _HEIGHTS[vectors])

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


gemm_rows_v1, gemm_rows_v2, gemm_rows_v4 = _any_rows(1), _any_rows(2), _any_rows(4, nearest=True)
"""Of one, two and four vectors of channels out, whose weights `(taps * depth, vectors * LANES)` lie together."""
depthwise_rows = _any_rows(1, alone=True)
"""Of one vector of channels, each with a filter of its own."""
