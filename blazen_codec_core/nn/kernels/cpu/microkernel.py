"""GEMM micro-kernels: tiles of sums that stay in vector registers, emitted as LLVM instructions.

A matrix product runs at the processor's speed if a tile of its output, a few rows by a few vectors of columns, never leaves the
registers (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). For each term a few vectors of weights
are loaded, and the value of each row is multiplied with all of them. Compilers do not find this in loops, so it is emitted here.
Terms of a row may be any steps apart: a convolution needs no copy of its windows (implicit GEMM).

Each sum takes its terms in order, wherever in a tile its row is, so it is the same to the bit in any tile. The initial value
is added last, so that a long sum computed in K-blocks rounds like a short one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import variant
from .simd import INDEX, LANE, LANES, CountedLoop, Vector, address_of, forbid_reordering, intrinsic_from

_TILE_HEIGHTS = {
    16: {1: (12, 4, 2, 1), 2: (8, 4, 2, 1), 4: (6, 4, 2, 1)},
    8: {1: (8, 4, 2, 1), 2: (6, 4, 2, 1), 4: (3, 2, 1, 1)},
}[LANES]
"""Rows of a tile (MR) by its width in vectors (NR): the most that compile to few instructions, then heights for the rest."""
_UNROLL = 4
"""Terms of an iteration of the tallest tile. Rows' addresses are then computed once for all of them."""
_PREFETCHING_TILES = 4
"""Tiles, at most, that prefetch the next weights, each a part of them."""


def is_available() -> bool:
    """Tell whether this processor has vectors that micro-kernels are emitted for."""
    return torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}


def _microkernel(mr: int, nr: int, *, unroll: int = 1, depthwise: bool = False) -> Any:
    """Numba intrinsic that computes a tile of `mr` rows and `nr` vectors: `out = init + X @ W`.

    It is called with `(x, row, taps, tap, depth, weight, init, init_row, out, out_row, ahead, step)`: addresses of float32
    values, and strides counted in values. It computes `out[r, c] = init[r, c] + sum over j, k of x[r * row + j * tap + k] *
    weight[j, k, c]`, for at least one tap of at least one value; `unroll` divides `depth`. For each of these terms, the next
    `step` values from the address `ahead` are prefetched. With `depthwise`, each channel has its own filter: the sum is that
    over j of `x[r * row + j * tap + c] * weight[j, c]`.

    Processors decode few instructions a cycle, which two threads of a core share. So beside the multiplications of a term there
    are as few others as possible: a wide tile has few rows, whose addresses serve `unroll` terms.
    """
    lines = 1 if unroll > 1 else nr

    def emit(
        builder: Any,
        x: Any,
        row: Any,
        taps: Any,
        tap: Any,
        depth: Any,
        weight: Any,
        init: Any,
        init_row: Any,
        out: Any,
        out_row: Any,
        ahead: Any,
        step: Any,
    ) -> None:
        x, weight, init, out, ahead = (address_of(builder, address) for address in (x, weight, init, out, ahead))

        def element(base: Any, stride: Any, r: int, c: int) -> Any:
            return builder.gep(base, [builder.add(builder.mul(stride, INDEX(r)), INDEX(c))])

        def values_of(vectors: list[Vector]) -> list[Any]:
            return [vector.value for vector in vectors]

        accumulators = [Vector.splat(builder, 0.0)] * (mr * nr)
        line = builder.sdiv(step, INDEX(lines))
        tap_loop = CountedLoop(builder, taps, [x, weight, ahead, *values_of(accumulators)])
        x, weight, ahead, *sums = tap_loop.phis
        depth_loop = CountedLoop(builder, builder.sdiv(depth, INDEX(unroll)), [x, weight, ahead, *sums])
        value, weight, ahead, *sums = depth_loop.phis
        accumulators = [Vector(builder, total) for total in sums]
        for k in range(unroll):
            if k:  # loads moved up from later terms would need the registers of the accumulators
                forbid_reordering(builder)
            weight_row = [Vector.load(builder, builder.gep(weight, [INDEX((k * nr + v) * LANES)])) for v in range(nr)]
            for v in range(lines):
                _prefetch(builder, builder.gep(ahead, [builder.mul(line, INDEX(k * lines + v))]))
            for r in range(mr):
                factor = (Vector.load if depthwise else Vector.broadcast_load)(builder, element(value, row, r, k))
                for v in range(nr):
                    accumulators[r * nr + v] = factor.fma(weight_row[v], accumulators[r * nr + v])
        steps = INDEX(unroll), INDEX(unroll * nr * LANES), builder.mul(step, INDEX(unroll))
        addresses = [builder.gep(address, [stride]) for address, stride in zip((value, weight, ahead), steps, strict=True)]
        _, weight, ahead, *sums = depth_loop.advance([*addresses, *values_of(accumulators)])
        tap_loop.advance([builder.gep(x, [tap]), weight, ahead, *sums])
        for r in range(mr):
            for v in range(nr):
                initial = Vector.load(builder, element(init, init_row, r, v * LANES))
                (initial + accumulators[r * nr + v]).store(element(out, out_row, r, v * LANES))

    return intrinsic_from(emit)


def _prefetch(builder: Any, address: Any) -> None:
    """Prefetch the value at an address into the L2 cache."""
    byte = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [byte, LANE, LANE, LANE])
    prefetch = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.bitcast(address, byte), LANE(0), LANE(2), LANE(1)])


def _array_view(kind: Any) -> Any:
    """Function of an address and a shape that is a C-contiguous array of values of a type of numba's."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), emit

    @njit
    @variant(kind)
    def view(address, shape):  # type: ignore[no-untyped-def]
        return carray(pointer(address), shape)

    return view


array, float64_array, int32_array, int64_array = (
    _array_view(kind) for kind in (types.float32, types.float64, types.int32, types.int64)
)
"""Arrays at an address, whose indices numba checks if asked to (`NUMBA_BOUNDSCHECK`)."""


@njit
def address(values):  # type: ignore[no-untyped-def]
    """Address of an array's first value."""
    return np.int64(values.ctypes.data)


def estimated_cost(count: int, nr: int) -> int:
    """Estimated cost of `count` rows of `nr` vectors; a tile of fewer than four rows costs as much as one of four."""
    time = 0
    for height in _TILE_HEIGHTS[nr]:
        time, count = time + count // height * max(height, 4), count % height
    return time


def _row_loop(nr: int, *, depthwise: bool = False) -> Any:
    """`_microkernel` for `Rows` x, init and out, `Terms`, and any number of rows, the last argument; `init` may be `out`.

    Weights `ahead` values on are prefetched once, by several tiles in turn: a line that is asked for again, or many at a time,
    would delay other loads. The tallest tile prefetches one line for each term; a wide panel needs two such tiles.
    """
    mr_0, mr_1, mr_2, mr_3 = _TILE_HEIGHTS[nr]
    unroll, least = (1, 1) if depthwise else (_UNROLL, min(2, nr))
    tile_0 = _microkernel(mr_0, nr, unroll=unroll, depthwise=depthwise)
    tile_1, tile_2, tile_3 = (_microkernel(mr, nr, depthwise=depthwise) for mr in (mr_1, mr_2, mr_3))

    @njit
    @variant(nr, depthwise)
    def rows(x, terms, weight, init, out, ahead, count):  # type: ignore[no-untyped-def]
        row, init_row, out_row = x.stride, init.stride, out.stride
        taps, tap, depth = terms
        tiles = min(_PREFETCHING_TILES, max(1, count // mr_0))
        step = nr * LANES // tiles if ahead else 0
        first, size = weight + 4 * ahead, 4 * taps * depth * nr * LANES
        next_weight, r = first, 0
        while r < count:
            x_r, init_r, out_r = x.address + 4 * r * row, init.address + 4 * r * init_row, out.address + 4 * r * out_row
            if count - r >= mr_0 and tiles >= least and depth % unroll == 0:
                tile_0(x_r, row, taps, tap, depth, weight, init_r, init_row, out_r, out_row, next_weight, step)
                r += mr_0
            elif count - r >= mr_1:
                tile_1(x_r, row, taps, tap, depth, weight, init_r, init_row, out_r, out_row, next_weight, step)
                r += mr_1
            elif count - r >= mr_2:
                tile_2(x_r, row, taps, tap, depth, weight, init_r, init_row, out_r, out_row, next_weight, step)
                r += mr_2
            else:
                tile_3(x_r, row, taps, tap, depth, weight, init_r, init_row, out_r, out_row, next_weight, step)
                r += mr_3
            next_weight += 4 * taps * depth * step
            if next_weight >= first + size:
                next_weight, step = weight, 0

    return rows


gemm_rows_v1, gemm_rows_v2, gemm_rows_v4 = _row_loop(1), _row_loop(2), _row_loop(4)
"""GEMM with one, two and four vectors of output channels, whose weights `(taps * depth, nr * LANES)` are contiguous."""
depthwise_rows = _row_loop(1, depthwise=True)
"""Depthwise convolution of one vector of channels."""
