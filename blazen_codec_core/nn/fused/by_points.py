"""Convolutions in fewer products than they have taps; see `points`."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..points import OF_THREE, OF_TWO, Points
from .compiling import array, in_parts, parts_for
from .panels import in_panels, kept, panel
from .registers import LANES, address, mixing, time_of_rows

_ZERO = np.float32(0)
_FEWEST, _MOST, _VALUES = 24, 96, 1 << 17
"""Rows of frames computed together that are worked on at a time; and what the signal becomes for them, which stays in cache."""

_signal_of_three, _frames_of_three = mixing(OF_THREE.of_signal.tolist()), mixing(OF_THREE.to_frames.tolist(), add=True)
_signal_of_two, _frames_of_two = mixing(OF_TWO.of_signal.tolist()), mixing(OF_TWO.to_frames.tolist(), add=True)


@njit
def _spread(taps, x, dilation, first, end, out, offset, edge):  # type: ignore[no-untyped-def]
    """What the values of the taps are multiplied with, of rows `first` to `end`, to `(points, row - offset, channels)`; frames
    past the end of the signal are zeros."""
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
            panel(vectors, source, channels, reach - 1, block * channels, channels, of_tap, at_start, to, out, stop - start)
        else:
            for t in range(start, stop):
                y[t, column : column + width] = bias[column : column + width]
        for i in range(made.shape[0]):
            source, of_point, to = address(signal[i]), address(weight[number, i]), address(made[i])
            panel(vectors, source, channels, reach, dilation * channels, channels, of_point, none, to, width, end - first)
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
        self._bias = kept(bias, weight)
        self._more = (len(taps) - 1) * dilation

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        d, count, width = self._dilation, self._weight.shape[1], self._weight.shape[3]
        whole, over = divmod(frames, self._points.frames * d)
        rows = whole * d + min(d, over)
        parts = parts_for(rows * self._channels * width)
        strip = _strip(rows, d, parts, max(_FEWEST, min(_MOST, _VALUES // (count * self._channels))))
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
def _strip(rows: int, dilation: int, parts: int, most: int) -> int:
    """Rows, in whole blocks, that are worked on together: at most about so many, and so that the parts end early."""
    if rows <= most * parts:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)

    def time(count: int) -> int:
        strips = math.ceil(rows / count)
        return math.ceil(strips / parts) * (1 + time_of_rows(count))

    return min(choices, key=time)
