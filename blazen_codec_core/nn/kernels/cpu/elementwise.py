"""Elementwise operations in one pass, where a chain of PyTorch's operations makes four.

They take a whole signal, or what a loop has just made, while it is still in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import ELU, NONE, NOTHING, SNAKE, Epilogue
from ..memory_format import is_frame_contiguous
from . import vecmath
from .jit import jit_parallel, num_threads_for, require_float32_rows
from .simd import LANES, Loop, Vector, address_of, written


def _each(function: Callable[[Vector, Vector, Vector], Vector], lanes: int = LANES, *, numbers: bool = False) -> Any:
    """Numba intrinsic that applies a function to each vector of a signal, and writes to another signal or to the same one.

    It is called with `(x, x_step, out, out_step, one, other, step, count)`: addresses, steps between vectors counted in values,
    and how many there are. A vector's function is given two more, or the `numbers` at these addresses.
    """

    def write(builder: Any, x: Any, x_step: Any, out: Any, out_step: Any, one: Any, other: Any, step: Any, count: Any) -> None:
        loop = Loop(builder, count, [address_of(builder, each) for each in (x, out, one, other)])
        x, out, one, other = loop.carried
        load = Vector.broadcast_load if numbers else Vector.load
        function(Vector.load(builder, x, lanes), load(builder, one, lanes), load(builder, other, lanes)).store(out)
        steps = (x_step, out_step, step, step)
        loop.next([builder.gep(each, [far]) for each, far in zip(loop.carried, steps, strict=True)])

    return written(write)


_snakes, _snake = _each(vecmath.snake), _each(vecmath.snake, 1)
_elus, _elu = (_each(lambda x, one, other: vecmath.elu(x), lanes) for lanes in (LANES, 1))
_copies, _copy = (_each(lambda x, one, other: x, lanes) for lanes in (LANES, 1))
_zeros, _zero = (_each(lambda x, one, other: x.like(0.0), lanes) for lanes in (LANES, 1))
_sums = _each(lambda x, one, other: x + one)
_multiples = _each(lambda x, one, other: x * one, numbers=True)

EPILOGUE_TYPE = "UniTuple(i8, 9)"
"""In a loop's signature: what `epilogue_args` makes."""
_ZEROS = -1
"""The kind of function that makes zeros of all values."""
_NOT_AT_ALL = (NONE, *[0] * 8)
_NO_ENDS = np.empty(0, np.int32)


@njit
def _row(kind, x, alpha, inverse, out, channels):  # type: ignore[no-untyped-def]
    """A function of the values of one frame, whose addresses these are."""
    vectors, whole = channels // LANES, channels // LANES * LANES
    if vectors:
        if kind == SNAKE:
            _snakes(x, LANES, out, LANES, alpha, inverse, LANES, vectors)
        elif kind == ELU:
            _elus(x, LANES, out, LANES, x, x, LANES, vectors)
        elif kind == _ZEROS:
            _zeros(x, LANES, out, LANES, x, x, LANES, vectors)
        else:
            _copies(x, LANES, out, LANES, x, x, LANES, vectors)
    if channels > whole:
        x, out, alpha, inverse = x + 4 * whole, out + 4 * whole, alpha + 4 * whole, inverse + 4 * whole
        if kind == SNAKE:
            _snake(x, 1, out, 1, alpha, inverse, 1, channels - whole)
        elif kind == ELU:
            _elu(x, 1, out, 1, x, x, 1, channels - whole)
        elif kind == _ZEROS:
            _zero(x, 1, out, 1, x, x, 1, channels - whole)
        else:
            _copy(x, 1, out, 1, x, x, 1, channels - whole)


@njit
def finish(after, signal, out, channels, first, end, left, right):  # type: ignore[no-untyped-def]
    """Apply an epilogue to frames `first` to `end` and channels `left` to `right` of one output of the batch.

    The channels are whole vectors. `signal` is the output's number in the batch, and `out` its address.
    """
    kind, alpha, inverse, scale, held, before, held_batch, added, added_batch = after
    if kind == NONE and not (scale or before or added):
        return
    vectors = (right - left) // LANES
    for t in range(first, end):
        place = 4 * (t * channels + left)
        own = out + place
        if scale:
            _multiples(own, LANES, own, LANES, scale + 4 * t, scale + 4 * t, 0, vectors)
        if kind != NONE:
            _row(kind, own, alpha + 4 * left, inverse + 4 * left, own, right - left)
        if t < before:
            other = held + 4 * signal * held_batch + place
            _sums(own, LANES, own, LANES, other, other, LANES, vectors)
        elif added:
            other = added + 4 * (signal * added_batch - before * channels) + place
            _sums(own, LANES, own, LANES, other, other, LANES, vectors)


def _parameters(function: Epilogue) -> tuple[int, ...]:
    return tuple(require_float32_rows(each).data_ptr() for each in function.parameters) if function.parameters else (0, 0)


def epilogue_args(after: Epilogue) -> tuple[tuple[int, ...], list[Tensor]]:
    """The first argument of `finish`: addresses, and what lies there, which is to be kept until it has been read."""
    if after is NOTHING:
        return _NOT_AT_ALL, []
    signals = [None if x is None or not x.shape[1] else require_float32_rows(x) for x in (after.held, after.added)]
    (held, held_batch), (added, added_batch) = ((0, 0) if x is None else (x.data_ptr(), x.stride(0)) for x in signals)
    before = 0 if after.held is None else after.held.shape[1]
    scale = 0 if after.scale is None else require_float32_rows(after.scale).data_ptr()
    addresses = (after.kind, *_parameters(after), scale, held, before, held_batch, added, added_batch)
    return addresses, [x for x in signals if x is not None]


@jit_parallel("void(i8, i8, i8, i8, i8, i8, i8, i8, i4[::1], i8, i8, i8, i8, i8, i8, i8, i8)")
def _join(
    batch: int, tail: int, tail_batch: int, before: int, x: int, x_batch: int, left: int, frames: int, ends: Any, kind: int,
    alpha: int, inverse: int, out: int, out_batch: int, total: Any, channels: int, parts: int,
) -> None:  # fmt: skip
    """Join the tail of each signal, `left` zeros, and its next frames after a function of one value; zeros fill the rest.

    There are `frames` next frames, or as many as `ends` says for each signal; the tail has `before` frames.
    """
    start, share, row = before + left, -(-total // parts), 4 * channels
    for signal in range(batch):
        own_tail, own_x, made = tail + 4 * signal * tail_batch, x + 4 * signal * x_batch, out + 4 * signal * out_batch
        there = min(frames, ends[signal]) if ends.size else frames
        for part in prange(parts):
            number = np.int64(part)
            for t in range(number * share, min(total, (number + 1) * share)):
                if start <= t < start + there:
                    _row(kind, own_x + (t - start) * row, alpha, inverse, made + t * row, channels)
                elif t < before:
                    _row(NONE, own_tail + t * row, alpha, inverse, made + t * row, channels)
                else:
                    _row(_ZEROS, made + t * row, alpha, inverse, made + t * row, channels)


def suits(*signals: Tensor) -> bool:
    """Tell whether these loops work on signals `(batch, frames, channels)`."""
    return all(x.dtype == torch.float32 and x.device.type == "cpu" and is_frame_contiguous(x) for x in signals)


def apply(function: Epilogue, x: Tensor, out: Tensor) -> None:
    """Writes the function of a signal to another one of its shape."""
    join(x[:, :0], x, 0, function, out)


def join(
    tail: Tensor, x: Tensor, left: int, function: Epilogue, out: Tensor, ends: Tensor | None = None, *, rough: bool = False
) -> None:
    """Writes to `out` what `conv.behind` makes."""
    counts = _NO_ENDS if ends is None else ends.to(torch.int32).numpy()
    before, after = (tail.data_ptr(), tail.stride(0), tail.shape[1]), (x.data_ptr(), x.stride(0), left, x.shape[1])
    of_out = (out.data_ptr(), out.stride(0), out.shape[1], out.shape[2])
    _join(x.shape[0], *before, *after, counts, function.kind, *_parameters(function), *of_out, num_threads_for(x.numel()))
