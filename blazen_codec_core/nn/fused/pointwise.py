"""What is done to each value by itself: to a whole signal in one pass, where a chain of PyTorch's elementwise operations makes
four, or to what a loop has just made, while it is still in the nearest cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..after import ELU, NONE, NOTHING, SNAKE, After
from . import functions
from .compiling import array, in_parts, parts_for
from .lanes import LANES, Lanes, Loop, address_of, written
from .registers import address


def _each(function: Callable[[Lanes, Lanes, Lanes], Lanes], lanes: int = LANES, *, numbers: bool = False) -> Any:
    """What makes vectors of one signal into those of another, or of the same.

    It is called with `(x, x_step, out, out_step, one, other, step, count)`: addresses, steps between vectors counted in values,
    and how many there are. A vector's function is given two more, or the `numbers` at these addresses.
    """

    def write(builder: Any, x: Any, x_step: Any, out: Any, out_step: Any, one: Any, other: Any, step: Any, count: Any) -> None:
        loop = Loop(builder, count, [address_of(builder, each) for each in (x, out, one, other)])
        x, out, one, other = loop.carried
        load = Lanes.load_everywhere if numbers else Lanes.load
        function(Lanes.load(builder, x, lanes), load(builder, one, lanes), load(builder, other, lanes)).store(out)
        steps = (x_step, out_step, step, step)
        loop.next([builder.gep(each, [far]) for each, far in zip(loop.carried, steps, strict=True)])

    return written(write)


_snakes, _snake = _each(functions.snake), _each(functions.snake, 1)
_elus, _elu = (_each(lambda x, one, other: functions.elu(x), lanes) for lanes in (LANES, 1))
_copies, _copy = (_each(lambda x, one, other: x, lanes) for lanes in (LANES, 1))
_sums = _each(lambda x, one, other: x + one)
_multiples = _each(lambda x, one, other: x * one, numbers=True)

FINISHING = "Tuple((i8, f4[::1], f4[::1], f4[::1], f4[:, ::1], f4[:, ::1]))"
"""In a loop's signature: what `finishing` makes for a signal."""
_ZERO = np.float32(0)
_NOTHING, _NO_FRAMES = np.empty(0, np.float32), np.empty((0, 0), np.float32)
_NOT_AT_ALL = (NONE, _NOTHING, _NOTHING, _NOTHING, _NO_FRAMES, _NO_FRAMES)


@njit
def _row(kind, x, alpha, inverse, out, channels):  # type: ignore[no-untyped-def]
    """A function of the values of one frame, whose addresses these are."""
    vectors, whole = channels // LANES, channels // LANES * LANES
    if vectors:
        if kind == SNAKE:
            _snakes(x, LANES, out, LANES, alpha, inverse, LANES, vectors)
        elif kind == ELU:
            _elus(x, LANES, out, LANES, x, x, LANES, vectors)
        else:
            _copies(x, LANES, out, LANES, x, x, LANES, vectors)
    if channels > whole:
        x, out, alpha, inverse = x + 4 * whole, out + 4 * whole, alpha + 4 * whole, inverse + 4 * whole
        if kind == SNAKE:
            _snake(x, 1, out, 1, alpha, inverse, 1, channels - whole)
        elif kind == ELU:
            _elu(x, 1, out, 1, x, x, 1, channels - whole)
        else:
            _copy(x, 1, out, 1, x, x, 1, channels - whole)


@njit
def finish(after, out, first, end, left, right):  # type: ignore[no-untyped-def]
    """What comes after, of frames from `first` to `end` and whole vectors of channels from `left` to `right`."""
    kind, alpha, inverse, scale, held, added = after
    before, vectors = held.shape[0], (right - left) // LANES
    for t in range(first, end):
        own = address(out[t, left:])
        if scale.size:
            factor = address(scale[t:])
            _multiples(own, LANES, own, LANES, factor, factor, 0, vectors)
        if kind != NONE:
            _row(kind, own, address(alpha[left:]), address(inverse[left:]), own, right - left)
        if added.size or before:
            other = address(held[t, left:]) if t < before else address(added[t - before, left:])
            _sums(own, LANES, own, LANES, other, other, LANES, vectors)


def finishing(after: After, signals: int) -> list[tuple[Any, ...]]:
    """The first argument of `finish` for each signal of a batch."""
    if after is NOTHING:
        return [_NOT_AT_ALL] * signals
    alpha, inverse = (array(each) for each in after.parameters) if after.parameters else (_NOTHING, _NOTHING)
    scale = _NOTHING if after.scale is None else array(after.scale)
    held, added = (_frames(each, signals) for each in (after.held, after.added))
    return [(after.kind, alpha, inverse, scale, *own) for own in zip(held, added, strict=True)]


def _frames(x: Tensor | None, signals: int) -> list[Any]:
    return [_NO_FRAMES] * signals if x is None or not x.shape[1] else [array(own.contiguous()) for own in x]


@in_parts("void(f4[:, ::1], f4[:, ::1], i8, i8, i8, f4[::1], f4[::1], f4[:, ::1], i8)")
def _join(tail: Any, x: Any, left: int, there: Any, kind: int, alpha: Any, inverse: Any, out: Any, parts: int) -> None:
    """Of the next frames there are so many; before and after them, and after the tail, are zeros."""
    channels, before, start = x.shape[1], tail.shape[0], tail.shape[0] + left
    share = -(-out.shape[0] // parts)
    for part in prange(parts):
        number = np.int64(part)
        for t in range(number * share, min(out.shape[0], (number + 1) * share)):
            if start <= t < start + there:
                _row(kind, address(x[t - start]), address(alpha), address(inverse), address(out[t]), channels)
            elif t < before:
                _row(NONE, address(tail[t]), address(alpha), address(inverse), address(out[t]), channels)
            else:
                for c in range(channels):
                    out[t, c] = _ZERO


def suits(*signals: Tensor) -> bool:
    """Whether these loops work on signals `(batch, frames, channels)`."""
    return all(x.dtype == torch.float32 and x.device.type == "cpu" and _rows_are_whole(x) for x in signals)


def _rows_are_whole(x: Tensor) -> bool:
    return x.stride(2) == 1 and x.stride(1) == x.shape[2]


def apply(function: After, x: Tensor, out: Tensor) -> None:
    """Writes the function of a signal to another one of its shape."""
    join(x[:, :0], x, 0, function, out)


def join(
    tail: Tensor, x: Tensor, left: int, function: After, out: Tensor, ends: Tensor | None = None, *, rough: bool = False
) -> None:
    """Writes to `out` what `conv.behind` makes."""
    batch, frames, _ = x.shape
    there = [frames] * batch if ends is None else [min(frames, end) for end in ends.tolist()]
    alpha, inverse = (array(each) for each in function.parameters) if function.parameters else (_NOTHING, _NOTHING)
    parts = parts_for(x.numel())
    for before, own, count, made in zip(array(tail), array(x), there, array(out), strict=True):
        _join(before, own, left, count, function.kind, alpha, inverse, made, parts)
