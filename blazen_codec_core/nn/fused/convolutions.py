"""Convolutions as blocks of sums in registers; see `registers`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..points import OF_THREE, OF_TWO, Points
from .compiling import array, in_parts, part, parts_for
from .registers import LANES, address, is_available, largest_of_lanes, mixing, rows_by_one, rows_by_two, time_of_rows

_ZERO = np.float32(0)
_TERMS = 256
"""Of a sum that are taken before those of the next rows, with the same weights."""
_STRIP_VALUES = 1 << 15
"""Of a signal that are gone through for one panel of weights after the other."""
_STRIP_ROWS = 64
"""The same, of rows of frames that are computed together."""
_FEW, _SOME, _MANY = 48, 96, 1 << 23
"""Channels that are too few for sums over points to cost little beside products, of three taps and of two; and weights that are so
many that reading more of them takes longer than multiplying."""


@njit
def _panel(vectors, x, row, taps, tap, depth, weight, bias, out, out_row, count):  # type: ignore[no-untyped-def]
    """So many rows by one panel of one or two vectors, some terms after the other, whose weights stay in the nearest cache."""
    some_taps, some_depth = max(1, _TERMS // depth), min(depth, _TERMS)
    start, start_row = bias, 0
    for j in range(0, taps, some_taps):
        for k in range(0, depth, some_depth):
            own_x, own_taps, own_depth = x + 4 * (j * tap + k), min(some_taps, taps - j), min(some_depth, depth - k)
            size = own_taps * own_depth * vectors * LANES
            if vectors == 1:
                rows_by_one(own_x, row, own_taps, tap, own_depth, weight, start, start_row, out, out_row, size, count)
            else:
                rows_by_two(own_x, row, own_taps, tap, own_depth, weight, start, start_row, out, out_row, size, count)
            weight += 4 * size
            start, start_row = out, out_row


@in_parts("void(i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def _convolve(
    x: int, row: int, taps: int, tap: int, depth: int, weight: int, bias: int, out: int, channels: int, frames: int,
    strip: int, vectors: int, parts: int,
) -> None:  # fmt: skip
    width = vectors * LANES
    panels, strips = channels // width, -(-frames // strip)
    share = -(-panels * strips // parts)
    heavy = taps * depth * channels > row * frames
    for number in prange(parts):
        for unit in range(number * share, min(panels * strips, (number + 1) * share)):
            own, place = (unit // strips, unit % strips) if heavy else (unit % panels, unit // panels)
            first, column = place * strip, own * width
            own_x, own_out = x + 4 * first * row, out + 4 * (first * channels + column)
            own_weight = weight + 4 * own * taps * depth * width
            count = min(strip, frames - first)
            _panel(vectors, own_x, row, taps, tap, depth, own_weight, bias + 4 * column, own_out, channels, count)


@part
def _largest(values, best, where):  # type: ignore[no-untyped-def]
    """Where it is, the first of them."""
    largest_of_lanes(address(values), values.size // LANES, address(best), address(where))
    lane = 0
    for i in range(1, LANES):
        if best[i] > best[lane] or (best[i] == best[lane] and where[i] < where[lane]):
            lane = i
    return where[lane] * LANES + lane


@in_parts("void(f4[:, ::1], f4[:, :, ::1], f4[::1], f4[:, :, ::1], i8[::1], i8)")
def _search(rows: Any, table: Any, offset: Any, scratch: Any, indices: Any, parts: int) -> None:
    channels, entries, width = rows.shape[1], offset.size, table.shape[2]
    share, strip = -(-rows.shape[0] // parts), scratch.shape[1]
    for number in prange(parts):
        made, end = scratch[number], min(rows.shape[0], (number + 1) * share)
        best, where = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
        for first in range(number * share, end, strip):
            source, count = address(rows[first:]), min(strip, end - first)
            for place in range(table.shape[0]):
                start, to = address(offset[place * width :]), address(made[0, place * width :])
                _panel(width // LANES, source, channels, 1, 0, channels, address(table[place]), start, to, entries, count)
            for row in range(count):
                indices[first + row] = _largest(made[row], best, where)


def vectors_for(channels: int) -> int:
    """Of a panel of weights, for so many channels out."""
    return 1 if channels % (2 * LANES) else 2


def suits_blocks(weight: Tensor) -> bool:
    """Whether blocks are made for a weight `(..., out)`: of channels that fill vectors."""
    return is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.shape[-1] % LANES == 0


def in_panels(weight: Tensor) -> Tensor:
    """A weight `(terms, out)` in panels `(panels, terms, width)`."""
    terms, channels = weight.shape
    width = vectors_for(channels) * LANES
    return weight.reshape(terms, channels // width, width).transpose(0, 1).contiguous()


class Blocks:
    """A convolution of float32 signals on a CPU, of windows that are not copied; see `kernels.Convolution`.

    Args:
        weight: `(kernel, in, out)`.
        stride: In frames, as is `dilation`.
    """

    any_length = True

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        kernel, channels, self._out = weight.shape
        self._row, self._tap = stride * channels, dilation * channels
        self._taps, self._depth = (1, kernel * channels) if dilation == 1 else (kernel, channels)
        self._weight = in_panels(weight.detach().reshape(-1, self._out))
        self._bias = _kept(bias, weight)
        self._vectors = vectors_for(self._out)

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        y = x.new_empty(x.shape[0], frames, self._out)
        parts = parts_for(frames * max(self._row, self._out))
        strip = -(-frames // (parts * max(1, frames * self._row // (parts * _STRIP_VALUES))))
        shape = (self._row, self._taps, self._tap, self._depth, self._weight.data_ptr(), self._bias.data_ptr())
        for signal, made in zip(x, y, strict=True):
            own = signal.contiguous()
            _convolve(own.data_ptr(), *shape, made.data_ptr(), self._out, frames, strip, self._vectors, parts)
        return y


class Search:
    """The entry of a codebook that has the largest product with a vector, the first of them; see `kernels.search`."""

    def __init__(self, table: Tensor, offset: Tensor | None) -> None:
        self._table, self._offset = in_panels(table.detach()), _kept(offset, table)

    def __call__(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(-1, codes.shape[-1]).contiguous()
        indices, entries = torch.empty(len(rows), dtype=torch.int64), len(self._offset)
        parts = parts_for(len(rows) * entries)
        scratch = rows.new_empty(parts, min(_STRIP_ROWS, max(1, len(rows))), entries)
        _search(array(rows), array(self._table), array(self._offset), array(scratch), array(indices), parts)
        return indices.reshape(codes.shape[:-1])


def _kept(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[-1]) if bias is None else bias.detach().clone()


_signal_of_three, _frames_of_three = mixing(OF_THREE.of_signal), mixing(OF_THREE.to_frames, add=True)
_signal_of_two, _frames_of_two = mixing(OF_TWO.of_signal), mixing(OF_TWO.to_frames, add=True)


@njit
def _spread(taps, x, dilation, first, end, out, offset, edge):  # type: ignore[no-untyped-def]
    """What the values of the taps are multiplied with, of rows `first` to `end`, to `(points, row - offset, channels)`; frames past
    the end of the signal are zeros."""
    points, channels = out.shape[0], x.shape[1]
    for q in range(first, end):
        at = q // dilation * (taps + 1) * dilation + q % dilation
        source, step = address(x[at:]), dilation * channels
        if at + (points - 1) * dilation >= x.shape[0]:
            edge[:] = _ZERO
            for i in range(points):
                if at + i * dilation < x.shape[0]:
                    edge[i] = x[at + i * dilation]
            source, step = address(edge), channels
        if taps == 3:
            _signal_of_three(source, step, address(out[0, q - offset :]), out.shape[1] * channels, channels)
        else:
            _signal_of_two(source, step, address(out[0, q - offset :]), out.shape[1] * channels, channels)


@njit
def _gather(taps, made, dilation, first, end, y, column, rest):  # type: ignore[no-untyped-def]
    """Adds what products `(points, rows, width)` make together to those frames that there are, from a column on."""
    width = made.shape[2]
    for q in range(first, end):
        at = q // dilation * (taps + 1) * dilation + q % dilation
        whole = at + taps * dilation < y.shape[0]
        to, step = address(rest), width
        if whole:
            to, step = address(y[at:, column:]), dilation * y.shape[1]
        else:
            rest[:] = _ZERO
        if taps == 3:
            _frames_of_three(address(made[0, q - first :]), made.shape[1] * width, to, step, width)
        else:
            _frames_of_two(address(made[0, q - first :]), made.shape[1] * width, to, step, width)
        if not whole:
            for i in range(taps + 1):
                if at + i * dilation < y.shape[0]:
                    for c in range(width):
                        y[at + i * dilation, column + c] += rest[i, c]


@njit
def _products(taps, x, dilation, weight, plain, bias, first, end, panels, signal, made, rest, nothing, y):  # type: ignore[no-untyped-def]
    """Rows `first` to `end`, whose first is that of a block, by some panels of channels out."""
    block, channels, out = (taps + 1) * dilation, x.shape[1], y.shape[1]
    width, reach = made.shape[2], weight.shape[2] // channels
    start, stop = first // dilation * block, min(-(-end // dilation) * block, y.shape[0])
    vectors, none = width // LANES, address(nothing)
    for number in range(panels[0], panels[1]):
        column = number * width
        if reach > 1:
            source, of_tap, to = address(x[start + taps * dilation :]), address(plain[number]), address(y[start:, column:])
            at_start = address(bias[column:])
            _panel(vectors, source, channels, reach - 1, block * channels, channels, of_tap, at_start, to, out, stop - start)
        else:
            for t in range(start, stop):
                y[t, column : column + width] = bias[column : column + width]
        for i in range(made.shape[0]):
            source, of_point, to = address(signal[i]), address(weight[number, i]), address(made[i])
            _panel(vectors, source, channels, reach, dilation * channels, channels, of_point, none, to, width, end - first)
        _gather(taps, made, dilation, first, end, y, column, rest)


@in_parts(
    "void(i8, f4[:, ::1], i8, f4[:, :, :, ::1], f4[:, :, ::1], f4[::1], i8, i8, f4[:, :, :, ::1], f4[:, :, :, ::1], "
    "f4[:, :, ::1], f4[:, :, ::1], f4[::1], f4[:, ::1], i8)"
)
def _convolve_by_points(
    taps: int, x: Any, dilation: int, weight: Any, plain: Any, bias: Any, rows: int, strip: int, signal: Any, made: Any,
    edge: Any, rest: Any, nothing: Any, y: Any, parts: int,
) -> None:  # fmt: skip
    panels, more = weight.shape[0], (weight.shape[2] // x.shape[1] - 1) * dilation
    strips = -(-rows // strip)
    if strips == 1:
        some, own = -(-(rows + more) // parts), -(-panels // parts)
        for number in prange(parts):
            end = min(rows + more, (number + 1) * some)
            _spread(taps, x, dilation, number * some, end, signal[0], 0, edge[number])
        for number in prange(parts):
            share = (number * own, min(panels, (number + 1) * own))
            _products(taps, x, dilation, weight, plain, bias, 0, rows, share, signal[0], made[number], rest[number], nothing, y)
    else:
        of_part = -(-strips // parts)
        for number in prange(parts):
            own_signal, own_made = signal[number], made[number]
            for place in range(number * of_part, min(strips, (number + 1) * of_part)):
                first, end = place * strip, min(rows, (place + 1) * strip)
                _spread(taps, x, dilation, first, end + more, own_signal, first, edge[number])
                every = (0, panels)
                _products(
                    taps, x, dilation, weight, plain, bias, first, end, every, own_signal, own_made, rest[number], nothing, y
                )


class BlocksByPoints:
    """A convolution in fewer products than it has taps: some taps at a time by way of points, and between them a plain one.

    With a dilation `d` the signal is taken as blocks of `d` frames, of which `points.frames` at a time are computed together: row
    `b * d + p` of the products begins at frame `p` of the `b`-th so many blocks.

    Args:
        weight: `(kernel, stride * in, out)`, where the signal is taken as frames of `stride` frames.
    """

    any_length = True

    def __init__(self, points: Points, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> None:
        kernel, self._channels, self._out = weight.shape
        self._points, self._dilation = points, dilation
        group = points.taps + 1
        taps = torch.stack([weight.detach()[start : start + points.taps] for start in range(0, kernel, group)])
        of_points = torch.einsum("pk,gkio->pgio", torch.from_numpy(points.of_taps), taps.double()).float()
        self._weight = torch.stack([in_panels(own.flatten(0, 1)) for own in of_points], dim=1).contiguous()
        self._plain = in_panels(weight.detach()[points.taps :: group].flatten(0, 1))
        self._bias = _kept(bias, weight)
        self._more = (len(taps) - 1) * dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        d, count, width = self._dilation, self._weight.shape[1], self._weight.shape[3]
        whole, over = divmod(frames, self._points.frames * d)
        rows = whole * d + min(d, over)
        parts = parts_for(rows * self._channels * width)
        strip = _strip(rows, d, parts)
        signal = x.new_empty(parts if strip < rows else 1, count, strip + self._more, self._channels)
        made, edge = x.new_empty(parts, count, strip, width), x.new_empty(parts, count, self._channels)
        rest, nothing = x.new_empty(parts, self._points.frames, width), x.new_zeros(width)
        y = x.new_empty(x.shape[0], frames, self._out)
        fixed = [array(each) for each in (self._weight, self._plain, self._bias)]
        scratch = [array(each) for each in (signal, made, edge, rest, nothing)]
        for own, out in zip(x, array(y), strict=True):
            source = array(own.contiguous()).reshape(-1)[: own.numel() // self._channels * self._channels]
            _convolve_by_points(
                self._points.taps, source.reshape(-1, self._channels), d, *fixed, rows, strip, *scratch, out, parts
            )
        return y


@functools.cache
def _strip(rows: int, dilation: int, parts: int) -> int:
    """Rows, in whole blocks, that are worked on together: about as many as stay in cache, so that all parts take the least time."""
    if rows <= _STRIP_ROWS * parts:
        return rows
    least, most = (-(-bound // dilation) for bound in (_STRIP_ROWS // 2, _STRIP_ROWS * 3 // 2))
    choices = [blocks * dilation for blocks in range(least, most + 1)]
    return min(choices, key=lambda count: -(-(-(-rows // count)) // parts) * (1 + time_of_rows(count)))


def convolution(weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> Blocks | BlocksByPoints:
    """The fastest way for a shape, whatever the signal's length.

    Args:
        weight: `(kernel, in, out)`.
    """
    kernel, channels, out = weight.shape
    if kernel == 2 * stride and dilation == 1 and min(stride * channels, out) > _SOME and weight.numel() < _MANY:
        return BlocksByPoints(OF_TWO, weight.reshape(2, stride * channels, out), bias)
    if stride == 1 and kernel % 4 == 3 and min(channels, out) > _FEW and weight.numel() < _MANY:
        return BlocksByPoints(OF_THREE, weight, bias, dilation)
    return Blocks(weight, bias, stride, dilation)
