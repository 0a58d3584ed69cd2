"""Winograd convolutions F(m, r): fewer products than taps times outputs; see `winograd`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import NOTHING, Epilogue, FusedConv1d
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform, plain
from .elementwise import EPILOGUE_TYPE, epilogue_args, finish
from .jit import array, jit_parallel, num_threads_for
from .microkernel import address, estimated_cost, mixing
from .packing import kept, pack_panels, panel
from .simd import LANES

_ZERO = np.float32(0)
_FEWEST, _MOST, _VALUES = 36, 96, 1 << 17
"""Rows of frames computed together that are worked on at a time; and what the signal becomes for them, which stays in cache."""
_PAGE, _LINES = 1024, 32
"""Values whose addresses have lines of cache of their own; and two such lines."""
_BY_NUMBER: tuple[WinogradTransform, ...] = (F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST)


def _chosen(functions: Sequence[Any]) -> Any:
    """The one of a number, the first argument."""
    first, others = functions[0], _chosen(functions[1:]) if functions[1:] else None

    @njit
    def call(number, source, step, start, start_step, out, out_step, channels):  # type: ignore[no-untyped-def]
        if number == 0 or others is None:
            first(source, step, start, start_step, out, out_step, channels)
        else:
            others(number - 1, source, step, start, start_step, out, out_step, channels)

    return call


_of_signal = _chosen([mixing(each.input_transform, from_start=False) for each in _BY_NUMBER])
_to_frames = _chosen([mixing(each.output_transform, from_start=True) for each in _BY_NUMBER])


@njit
def _spread(number, frames, x, dilation, first, end, out, offset, edge):  # type: ignore[no-untyped-def]
    """Apply the input transform to rows `first` to `end`, and write `(points, (row - offset) * channels)` to `out`.

    Frames past the end of the signal are zeros.
    """
    needed, channels = edge.shape[0], x.shape[1]
    for q in range(first, end):
        at = q // dilation * frames * dilation + q % dilation
        source, step = address(x[at:]), dilation * channels
        if at + (needed - 1) * dilation >= x.shape[0]:
            edge[:] = _ZERO
            for i in range(needed):
                if at + i * dilation < x.shape[0]:
                    edge[i] = x[at + i * dilation]
            source, step = address(edge), channels
        to = address(out[0, (q - offset) * channels :])
        _of_signal(number, source, step, to, 0, to, out.shape[1], channels)


@njit
def _gather(number, made, dilation, first, end, bias, y, column, rest):  # type: ignore[no-untyped-def]
    """Writes what products `(points, rows * width)` make together to those frames that there are, from a column on; added to a
    bias, or where its address is 0 to what is there.
    """
    frames, width = rest.shape
    for q in range(first, end):
        at = q // dilation * frames * dilation + q % dilation
        there = min(frames, (y.shape[0] - at - 1) // dilation + 1)
        to, step = address(y[at:, column:]), dilation * y.shape[1]
        if there < frames:
            for i in range(there):
                for c in range(width):
                    rest[i, c] = y[at + i * dilation, column + c]
            to, step = address(rest), width
        start, start_step = (bias, 0) if bias else (to, step)
        _to_frames(number, address(made[0, (q - first) * width :]), made.shape[1], start, start_step, to, step, width)
        if there < frames:
            for i in range(there):
                for c in range(width):
                    y[at + i * dilation, column + c] = rest[i, c]


@njit
def _products(  # type: ignore[no-untyped-def]
    filter, x, dilation, weight, plain, bias, first, end, panels, signal, made, rest, nothing, after, order, y,
):  # fmt: skip
    """Rows `first` to `end`, whose first is that of a block, by some panels of channels out."""
    number, tap = filter
    (frames, width), points, channels = rest.shape, made.shape[0], x.shape[1]
    start, stop = first // dilation * frames * dilation, min(-(-end // dilation) * frames * dilation, y.shape[0])
    for own in range(panels[0], panels[1]):
        column = own * width
        for i in range(points + (tap >= 0)):  # and the plain tap, in the same place of the program, which is compiled once
            if i < points:
                source, count, values, before = address(signal[i]), end - first, address(weight[own, i]), address(nothing)
                to, to_row = address(made[i]), width
            else:
                source, count, values = address(x[start + tap * dilation :]), stop - start, address(plain[own])
                before, to, to_row = address(bias[column:]), address(y[start:, column:]), y.shape[1]
            panel(width // LANES, source, channels, 1, 0, channels, values, before, to, to_row, count)
        _gather(number, made, dilation, first, end, address(bias[column:]) if tap < 0 else 0, y, column, rest)
        finish(after, order, address(y), y.shape[1], start, stop, column, column + width)


@jit_parallel("void(i8, f4[:, ::1], i8, i8, f4[:, ::1], f4[:, :, ::1], i8, i8)")
def _spread_all(number: int, x: Any, dilation: int, rows: int, signal: Any, edge: Any, frames: int, parts: int) -> None:
    share = -(-rows // parts)
    for part in prange(parts):
        _spread(number, frames, x, dilation, part * share, min(rows, (part + 1) * share), signal, 0, edge[part])


@jit_parallel(
    "void(UniTuple(i8, 2), f4[:, ::1], i8, f4[:, :, :, ::1], f4[:, :, ::1], f4[::1], i8, i8, f4[:, :, ::1], "
    f"f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[::1], {EPILOGUE_TYPE}, i8, f4[:, ::1], i8)"
)
def _convolve_by_points(
    filter: Any, x: Any, dilation: int, weight: Any, plain: Any, bias: Any, rows: int, strip: int, signal: Any, made: Any,
    edge: Any, rest: Any, nothing: Any, after: Any, order: int, y: Any, parts: int,
) -> None:  # fmt: skip
    """Each part makes strips of its own, or panels of its own of the only one, which is spread already."""
    panels, frames = weight.shape[0], rest.shape[1]
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
                _spread(filter[0], frames, x, dilation, first, end, own_signal, first, edge[number])
            _products(
                filter, x, dilation, weight, plain, bias, first, end, own_panels, own_signal, made[number], rest[number],
                nothing, after, order, y,
            )  # fmt: skip


class WinogradConv1d(FusedConv1d):
    """A convolution of as many taps as a filter, in its fewer products.

    With a dilation `d` the signal is taken as blocks of `d` frames, of which `own.frames` at a time are computed together: row
    `b * d + p` of the products begins at frame `p` of the `b`-th so many blocks.

    Args:
        weight: `(kernel, stride * in, out)`, where the signal is taken as frames of `stride` frames.
    """

    any_length = True

    def __init__(self, own: WinogradTransform, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> None:
        _, self._channels, self._out = weight.shape
        self._dilation, self._frames, self._needed = dilation, own.frames, own.input_transform[0].shape[1]
        of_points = torch.einsum("pk,kio->pio", torch.from_numpy(own.filter_transform), weight.detach().double()).float()
        by_panel, tap = torch.stack([pack_panels(each) for each in of_points], dim=1).contiguous(), _plain_tap(own)
        self._points, self._width = by_panel.shape[1], by_panel.shape[3]
        self._filter = (_BY_NUMBER.index(own), tap)
        self._weights = [array(each) for each in (by_panel, pack_panels(weight.detach()[tap]), kept(bias, weight))]
        self._nothing = array(weight.new_zeros(self._width))

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        d, count, width = self._dilation, self._points, self._width
        blocks, over = divmod(frames, self._frames * d)
        rows = blocks * d + min(d, over)
        parts = num_threads_for(rows * self._channels * width)
        strip = _strip(rows, d, parts, max(_FEWEST, min(_MOST, _VALUES // (count * self._channels))))
        y, (finished, _read) = x.new_empty(x.shape[0], frames, self._out), epilogue_args(after)  # below what is soon let go
        signal = array(x.new_empty(parts if strip < rows else 1, count, _apart(strip * self._channels)))
        made, edge = x.new_empty(parts, count, _apart(strip * width)), x.new_empty(parts, self._needed, self._channels)
        scratch = [signal, *(array(each) for each in (made, edge, x.new_empty(parts, self._frames, width)))]
        for order, (own, out) in enumerate(zip(x, array(y), strict=True)):
            whole = own.numel() // self._channels * self._channels
            source = array(own.contiguous()).reshape(-1)[:whole].reshape(-1, self._channels)
            if strip >= rows:
                _spread_all(self._filter[0], source, d, rows, signal[0], scratch[2], self._frames, parts)
            of_strips = (source, d, *self._weights, rows, strip, *scratch, self._nothing)
            _convolve_by_points(self._filter, *of_strips, finished, order, out, parts)
        return y


def _plain_tap(own: WinogradTransform) -> int:
    """Its number, or -1."""
    tap = plain(own)
    return -1 if tap is None else tap


def _apart(values: int) -> int:
    """At least so many, and such that what lies so many apart, again and again, does not share the few lines of cache that there
    are for an address.
    """
    return -(-(values - _LINES) // _PAGE) * _PAGE + _LINES


@functools.lru_cache(maxsize=1024)
def _strip(rows: int, dilation: int, parts: int, most: int) -> int:
    """Rows, in whole blocks, that are worked on together: at most about so many, and so that the parts end early."""
    if rows <= most * parts:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)

    def time(count: int) -> int:
        strips = math.ceil(rows / count)
        return math.ceil(strips / parts) * (4 + estimated_cost(count))

    return min(choices, key=time)
