"""Convolutions in fewer products than they have taps; see `points`."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..after import NOTHING, After, Fusing
from ..points import OF_THREE, OF_TWO, Points
from .compiling import array, in_parts, parts_for
from .lanes import LANES
from .panels import in_panels, kept, panel
from .pointwise import FINISHING, finish, finishing
from .registers import address, mixing, time_of_rows

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
def _products(  # type: ignore[no-untyped-def]
    taps, x, dilation, weight, plain, bias, first, end, panels, signal, made, rest, nothing, after, order, y,
):  # fmt: skip
    """Rows `first` to `end`, whose first is that of a block, by some panels of channels out."""
    block, channels = (taps + 1) * dilation, x.shape[1]
    points, width, reach = made.shape[0], made.shape[2], weight.shape[2] // channels
    start, stop = first // dilation * block, min(-(-end // dilation) * block, y.shape[0])
    for number in range(panels[0], panels[1]):
        column = number * width
        if reach == 1:
            for t in range(start, stop):
                y[t, column : column + width] = bias[column : column + width]
        for i in range(points + (reach > 1)):  # and the plain taps, in the same place of the program, which is compiled once
            if i < points:
                source, some, tap, count = address(signal[i]), reach, dilation * channels, end - first
                own, before, to, to_row = address(weight[number, i]), address(nothing), address(made[i]), width
            else:
                source, some, tap, count = address(x[start + taps * dilation :]), reach - 1, block * channels, stop - start
                own, before = address(plain[number]), address(bias[column:])
                to, to_row = address(y[start:, column:]), y.shape[1]
            panel(width // LANES, source, channels, some, tap, channels, own, before, to, to_row, count)
        _gather(taps, made, dilation, first, end, y, column, rest)
        finish(after, order, address(y), y.shape[1], start, stop, column, column + width)


@in_parts("void(i8, f4[:, ::1], i8, i8, f4[:, :, ::1], f4[:, :, ::1], i8)")
def _spread_all(taps: int, x: Any, dilation: int, rows: int, signal: Any, edge: Any, parts: int) -> None:
    share = -(-rows // parts)
    for number in prange(parts):
        _spread(taps, x, dilation, number * share, min(rows, (number + 1) * share), signal, 0, edge[number])


@in_parts(
    "void(i8, f4[:, ::1], i8, f4[:, :, :, ::1], f4[:, :, ::1], f4[::1], i8, i8, f4[:, :, :, ::1], f4[:, :, :, ::1], "
    f"f4[:, :, ::1], f4[:, :, ::1], f4[::1], {FINISHING}, i8, f4[:, ::1], i8)"
)
def _convolve_by_points(
    taps: int, x: Any, dilation: int, weight: Any, plain: Any, bias: Any, rows: int, strip: int, signal: Any, made: Any,
    edge: Any, rest: Any, nothing: Any, after: Any, order: int, y: Any, parts: int,
) -> None:  # fmt: skip
    """Each part makes strips of its own, or panels of its own of the only one, which is spread already."""
    panels, more = weight.shape[0], (weight.shape[2] // x.shape[1] - 1) * dilation
    strips = -(-rows // strip)
    share = -(-(panels if strips == 1 else strips) // parts)
    for part in prange(parts):
        number = np.int64(part)  # numba counts parts in unsigned numbers, which signed ones would make floating ones of
        begin, stop = number * share, (number + 1) * share
        own_signal = signal[0 if strips == 1 else number]
        own_strips = (0, 1) if strips == 1 else (begin, min(stop, strips))
        own_panels = (begin, min(stop, panels)) if strips == 1 else (0, panels)
        for place in range(own_strips[0], own_strips[1]):
            first, end = place * strip, min(rows, (place + 1) * strip)
            if strips > 1:
                _spread(taps, x, dilation, first, end + more, own_signal, first, edge[number])
            _products(
                taps, x, dilation, weight, plain, bias, first, end, own_panels, own_signal, made[number], rest[number], nothing,
                after, order, y,
            )  # fmt: skip


class BlocksByPoints(Fusing):
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

    def __call__(self, x: Tensor, frames: int, after: After = NOTHING) -> Tensor:
        d, count, width = self._dilation, self._weight.shape[1], self._weight.shape[3]
        blocks, over = divmod(frames, self._points.frames * d)
        rows = blocks * d + min(d, over)
        parts = parts_for(rows * self._channels * width)
        strip = _strip(rows, d, parts, max(_FEWEST, min(_MOST, _VALUES // (count * self._channels))))
        signal = x.new_empty(parts if strip < rows else 1, count, strip + self._more, self._channels)
        made, edge = x.new_empty(parts, count, strip, width), x.new_empty(parts, count, self._channels)
        rest, nothing = x.new_empty(parts, self._points.frames, width), x.new_zeros(width)
        y = x.new_empty(x.shape[0], frames, self._out)
        fixed, (finished, _read) = [array(each) for each in (self._weight, self._plain, self._bias)], finishing(after)
        scratch = [array(each) for each in (signal, made, edge, rest, nothing)]
        for order, (own, out) in enumerate(zip(x, array(y), strict=True)):
            whole = own.numel() // self._channels * self._channels
            source = array(own.contiguous()).reshape(-1)[:whole].reshape(-1, self._channels)
            if strip >= rows:
                _spread_all(self._points.taps, source, d, rows + self._more, scratch[0][0], scratch[2], parts)
            _convolve_by_points(self._points.taps, source, d, *fixed, rows, strip, *scratch, finished, order, out, parts)
        return y


@functools.lru_cache(maxsize=1024)
def _strip(rows: int, dilation: int, parts: int, most: int) -> int:
    """Rows, in whole blocks, that are worked on together: at most about so many, and so that the parts end early."""
    if rows <= most * parts:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)

    def time(count: int) -> int:
        strips = math.ceil(rows / count)
        return math.ceil(strips / parts) * (1 + time_of_rows(count))

    return min(choices, key=time)
