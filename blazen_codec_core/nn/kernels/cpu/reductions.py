"""Lane-wise reductions, an in-place affine map, and small linear transforms of vectors, emitted as LLVM instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numpy.typing import NDArray

from .simd import ALIGNED, INDEX, LANE, LANES, CountedLoop, Vector, address_of, intrinsic_from, vector_of

ACCUMULATORS = 4
"""Vectors of sums taken side by side, so that none waits for the one before."""


def _linear_transform(stages: Sequence[NDArray[np.float64]], lanes: int, from_init: bool) -> Any:
    """Numba intrinsic that multiplies a few signals by matrices, one after the other, value by value.

    For each matrix `out[j] = sum over i of matrix[j][i] * source[i]`, and `out` is the source of the next.

    It is called with `(source, step, init, init_step, out, out_step, count)`: `count` vectors of `lanes` values of signals whose
    addresses are `step` values apart. With `from_init`, the last sums begin with `init`, which may be `out`.
    """

    def emit(builder: Any, source: Any, step: Any, init: Any, init_step: Any, out: Any, out_step: Any, count: Any) -> None:
        def element(base: Any, stride: Any, i: int, column: Any) -> Any:
            offset = builder.add(builder.mul(stride, INDEX(i)), builder.mul(column, INDEX(lanes)))
            return builder.gep(address_of(builder, base), [offset])

        def dot(values: list[Vector], coefficients: NDArray[np.float64], total: Vector | None = None) -> Vector:
            for factor, value in zip(coefficients.tolist(), values, strict=True):
                if factor:
                    total = value * factor if total is None else value.fma(factor, total)
            assert total is not None
            return total

        loop = CountedLoop(builder, count, [INDEX(0)])
        (column,) = loop.phis
        values = [Vector.load(builder, element(source, step, i, column), lanes) for i in range(stages[0].shape[1])]
        for stage in stages[:-1]:
            values = [dot(values, coefficients) for coefficients in stage]
        for j, coefficients in enumerate(stages[-1]):
            initial = Vector.load(builder, element(init, init_step, j, column), lanes) if from_init else None
            dot(values, coefficients, initial).store(element(out, out_step, j, column))
        loop.advance([builder.add(column, INDEX(1))])

    return intrinsic_from(emit)


def linear_transform(stages: Sequence[NDArray[np.float64]], *, from_init: bool) -> Any:
    """`_linear_transform` of `Rows` source, init and out with any number of channels, the last argument."""
    vectors_of, values_of = _linear_transform(stages, LANES, from_init), _linear_transform(stages, 1, from_init)

    @njit(inline="always")
    def transform(source, init, out, channels):  # type: ignore[no-untyped-def]
        src, initial, dst = source.address, init.address, out.address
        vectors, tail = channels // LANES, 4 * (channels // LANES * LANES)
        if vectors:
            vectors_of(src, source.stride, initial, init.stride, dst, out.stride, vectors)
        if channels % LANES:
            values_of(src + tail, source.stride, initial + tail, init.stride, dst + tail, out.stride, channels % LANES)

    return transform


def _emit_lane_sums(builder: Any, values: Any, count: Any, sums: Any, squares: Any) -> None:
    values, sums, squares = (address_of(builder, address) for address in (values, sums, squares))
    loop = CountedLoop(builder, count, [values, *[Vector.splat(builder, 0.0).value] * (2 * ACCUMULATORS)])
    source, *totals = loop.phis
    accumulators = [Vector(builder, total) for total in totals]
    for v in range(ACCUMULATORS):
        value = Vector.load(builder, builder.gep(source, [INDEX(v * LANES)]))
        accumulators[v] = accumulators[v] + value
        accumulators[ACCUMULATORS + v] = value.fma(value, accumulators[ACCUMULATORS + v])
    loop.advance([builder.gep(source, [INDEX(ACCUMULATORS * LANES)]), *(vector.value for vector in accumulators)])
    for v in range(ACCUMULATORS):
        accumulators[v].store(builder.gep(sums, [INDEX(v * LANES)]))
        accumulators[ACCUMULATORS + v].store(builder.gep(squares, [INDEX(v * LANES)]))


lane_sums = intrinsic_from(_emit_lane_sums)
"""`(values, count, sums, squares)`: sums and sums of squares of `count` groups of `ACCUMULATORS` vectors, one for each lane of a
group, stored at the addresses `sums` and `squares`."""


def _emit_affine_inplace(builder: Any, x: Any, step: Any, rows: Any, factor: Any, offset: Any) -> None:
    scale, shift = (Vector.load(builder, address_of(builder, address)) for address in (factor, offset))
    loop = CountedLoop(builder, rows, [address_of(builder, x)])
    (row,) = loop.phis
    Vector.load(builder, row).fma(scale, shift).store(row)
    loop.advance([builder.gep(row, [step])])


affine_inplace = intrinsic_from(_emit_affine_inplace)
"""`(x, step, rows, factor, offset)`: `x = x * factor + offset` for one vector of channels, in rows `step` values apart."""


def _emit_lane_argmax(builder: Any, values: Any, count: Any, best: Any, best_index: Any) -> None:
    integers = vector_of(LANES, LANE)
    zero, one = (ir.Constant(integers, [value] * LANES) for value in (0, 1))
    lowest = Vector.splat(builder, float("-inf"))
    loop = CountedLoop(builder, count, [address_of(builder, values), zero, lowest.value, zero])
    source, index, largest, largest_index = loop.phis
    value = Vector.load(builder, source).value
    is_larger = builder.fcmp_ordered(">", value, largest)
    largest = builder.select(is_larger, value, largest)
    largest_index = builder.select(is_larger, index, largest_index)
    loop.advance([builder.gep(source, [INDEX(LANES)]), builder.add(index, one), largest, largest_index])
    Vector(builder, largest).store(address_of(builder, best))
    builder.store(largest_index, builder.inttoptr(best_index, integers.as_pointer()), align=ALIGNED)


lane_argmax = intrinsic_from(_emit_lane_argmax)
"""`(values, count, best, best_index)`: for each lane, the largest of `count` vectors and the number of the first vector that has
it, stored at the addresses `best` and `best_index` (int32)."""
