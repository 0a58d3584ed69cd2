"""Winograd convolution F(m, r): fewer multiplications than taps times outputs; see `winograd`.

With dilation d, a Winograd tile is m * d frames and has d rows. Row q = b * d + p of the transformed signal begins at frame p of
tile b, and takes every d-th frame from there. For F(4, 3) and d = 3, row 1 begins at frame 1 and yields frames 1, 4, 7 and 10.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from numba import njit
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform, untransformed_tap
from . import arguments
from .arguments import (
    NO_EPILOGUE,
    EpilogueArgs,
    Packed,
    Rows,
    Signal,
    Terms,
    WinogradFilter,
    WinogradScratch,
    epilogue_args,
    signal_args,
    signature,
)
from .elementwise import apply_epilogue, copy_row
from .jit import jit
from .microkernel import estimated_cost
from .packing import bias_or_zeros, gemm_panel, pack_panels
from .reductions import linear_transform
from .simd import LANES

_MIN_ROWS, _MAX_ROWS = 36, 96
"""Rows of the transformed signal that are multiplied together."""
_TRANSFORMED_VALUES = 1 << 17
"""Values of a transformed tile, which stays in cache."""
_ALIASING_STRIDE, _PADDING = 1024, 32
"""Values between addresses that compete for the same cache lines; values of two lines."""
_TRANSFORMS: tuple[WinogradTransform, ...] = (F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST)


def _dispatch(functions: Sequence[Any]) -> Any:
    """Function that calls the one whose number is its first argument."""
    zero, one, two, three, four = functions

    @njit
    def call(number, source, init, out, channels):  # type: ignore[no-untyped-def]
        if number == 0:
            zero(source, init, out, channels)
        elif number == 1:
            one(source, init, out, channels)
        elif number == 2:
            two(source, init, out, channels)
        elif number == 3:
            three(source, init, out, channels)
        else:
            four(source, init, out, channels)

    return call


_transform_row = _dispatch([linear_transform(transform.input_transform, from_init=False) for transform in _TRANSFORMS])
_transform_back = _dispatch([linear_transform(transform.output_transform, from_init=True) for transform in _TRANSFORMS])


@njit(inline="always")
def _input_transform(w, x, frames, first, end, out, edge):  # type: ignore[no-untyped-def]
    """Input transform (Bᵀd) of rows `first` to `end` of the signal at address `x`, into the `(points, stride)` rows `out`.

    Frames past the end of the signal are zeros, by way of the scratch `edge`, `(window, channels)`.
    """
    row = 4 * w.channels
    for q in range(first, end):
        frame = q // w.dilation * w.frames * w.dilation + q % w.dilation
        source = Rows(x + frame * row, w.dilation * w.channels)
        if frame + (w.window - 1) * w.dilation >= frames:
            for i in range(w.window):
                t = frame + i * w.dilation
                copy_row(x + t * row if t < frames else 0, edge + i * row, w.channels)
            source = Rows(edge, w.channels)
        target = Rows(out.address + (q - first) * row, out.stride)
        _transform_row(w.transform, source, target, target, w.channels)


@njit(inline="always")
def _output_transform(w, products, first, end, bias, y, frames, channels, edge):  # type: ignore[no-untyped-def]
    """Output transform (Aᵀ) of `products`, `(points, rows * width)`, into one panel of the signal at address `y`.

    The result is added to the bias, or to `y` where the bias's address is 0. Tiles past the end go through the scratch `edge`,
    `(frames, width)`.
    """
    row, panel = 4 * channels, 4 * w.width
    for q in range(first, end):
        frame = q // w.dilation * w.frames * w.dilation + q % w.dilation
        valid = min(w.frames, (frames - frame - 1) // w.dilation + 1)
        target = Rows(y + frame * row, w.dilation * channels)
        if valid < w.frames:
            for i in range(valid):
                copy_row(y + (frame + i * w.dilation) * row, edge + i * panel, w.width)
            target = Rows(edge, w.width)
        source = Rows(products.address + (q - first) * panel, products.stride)
        _transform_back(w.transform, source, Rows(bias, 0) if bias else target, target, w.width)
        if valid < w.frames:
            for i in range(valid):
                copy_row(edge + i * panel, y + (frame + i * w.dilation) * row, w.width)


@njit(inline="always")
def _convolve_tile(x, w, s, after, y, number, first, end):  # type: ignore[no-untyped-def]
    """Transform rows `first` to `end`, multiply them by every panel, point by point, and transform back.

    The untransformed tap, if there is one, is a GEMM of the signal itself.
    """
    terms, d = Terms(1, 0, w.channels), w.dilation
    source, out = x.address + 4 * number * x.batch_stride, y.address + 4 * number * y.batch_stride
    transformed, products = Rows(s.transformed, s.transformed_stride), Rows(s.products, s.products_stride)
    _input_transform(w, source, x.frames * x.channels // w.channels, first, end, transformed, s.input_edge)
    start, stop = first // d * w.frames * d, min(-(-end // d) * w.frames * d, y.frames)
    for panel in range(y.channels // w.width):
        col, size = panel * w.width, 4 * w.channels * w.width
        bias = w.bias + 4 * col
        for i in range(w.points + (w.tap >= 0)):  # the tap goes through the same call, which is compiled once
            if i < w.points:
                src, count, init = transformed.address + 4 * i * transformed.stride, end - first, w.zeros
                values, target = (
                    w.weight + (panel * w.points + i) * size,
                    Rows(products.address + 4 * i * products.stride, w.width),
                )
            else:
                src, count, init = source + 4 * (start + w.tap * d) * w.channels, stop - start, bias
                values, target = w.untransformed + panel * size, Rows(out + 4 * (start * y.channels + col), y.channels)
            gemm_panel(w.width // LANES, Rows(src, w.channels), terms, values, init, target, count)
        bias = bias if w.tap < 0 else 0
        _output_transform(w, products, first, end, bias, out + 4 * col, y.frames, y.channels, s.output_edge)
        apply_epilogue(after, y, number, start, stop, col, col + w.width)


@jit(signature(Signal, WinogradFilter, WinogradScratch, EpilogueArgs, Signal))
def _convolve(signal: Any, packed: Any, scratch: Any, epilogue: Any, output: Any) -> None:
    x, w, s = Signal(*signal), WinogradFilter(*packed), WinogradScratch(*scratch)
    after, y = EpilogueArgs(*epilogue), Signal(*output)
    over = y.frames % (w.frames * w.dilation)
    rows = y.frames // (w.frames * w.dilation) * w.dilation + min(w.dilation, over)
    for number in range(y.batch):
        for first in range(0, rows, s.rows):
            _convolve_tile(x, w, s, after, y, number, first, min(rows, first + s.rows))


class WinogradConv1d(FusedConv1d):
    """Winograd convolution; see `interface.Conv1dKernel`.

    Args:
        transform: F(m, r) with r = `kernel`.
        weight: `(kernel, stride * in, out)`, where the signal is read as blocks of `stride` frames.
    """

    needs_bucketing = False

    def __init__(
        self, transform: WinogradTransform, weight: Tensor, bias: Tensor | None, dilation: int = 1, stride: int = 1
    ) -> None:
        kernel, self._block, self._out = weight.shape
        self._stride, self._channels = stride, self._block // stride
        self._reach, self._dilation = (kernel - 1) * dilation * stride, dilation
        self._frames, window = transform.frames, transform.input_transform[0].shape[1]
        filter_transform = torch.from_numpy(transform.filter_transform)
        by_point = torch.einsum("pk,kio->pio", filter_transform, weight.detach().double()).float()
        by_panel = torch.stack([pack_panels(point) for point in by_point], dim=1)
        self._points, self._width = by_panel.shape[1], by_panel.shape[3]
        tap = untransformed_tap(transform)
        tap = -1 if tap is None else tap
        bias, zeros = bias_or_zeros(bias, weight), weight.new_zeros(self._width)
        self._packed = Packed(by_panel, pack_panels(weight[tap]), bias, zeros)
        geometry = (_TRANSFORMS.index(transform), tap, self._frames, window, self._points, self._block, self._width, dilation)
        self._filter = tuple(WinogradFilter(*geometry, *self._packed.addresses))
        self._edges = (window, self._block), (self._frames, self._width)
        self._most = max(_MIN_ROWS, min(_MAX_ROWS, _TRANSFORMED_VALUES // (self._points * self._block)))
        self._convolve = _convolve.compiled()

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        source = signal_args(x, frames * self._stride + self._reach, self._channels)
        # the output is allocated below the scratch, which is freed first: the heap does not fragment
        allocate = arguments.allocate
        y = allocate(source[2], frames, self._out)
        output = signal_args(y)
        tiling = _, *strides = _tiling(frames, self._frames, self._dilation, self._most, self._block, self._width)
        transformed, products = allocate(self._points, strides[0]), allocate(self._points, strides[1])
        input_edge, output_edge = allocate(*self._edges[0]), allocate(*self._edges[1])
        after, _copies = NO_EPILOGUE if epilogue is IDENTITY else epilogue_args(epilogue, output)
        addresses = (transformed.data_ptr(), products.data_ptr(), input_edge.data_ptr(), output_edge.data_ptr())
        self._convolve(source, self._filter, (*tiling, *addresses), after, output)
        return y


def _pad_against_aliasing(values: int) -> int:
    """Row length of at least `values`, such that equal columns of consecutive rows do not compete for the same cache lines."""
    return -(-(values - _PADDING) // _ALIASING_STRIDE) * _ALIASING_STRIDE + _PADDING


@functools.lru_cache(maxsize=1024)
def _tiling(frames: int, m: int, dilation: int, most: int, channels: int, width: int) -> tuple[int, int, int]:
    """Rows of a tile, and the strides of its scratch before and after the GEMMs."""
    blocks, over = divmod(frames, m * dilation)
    rows = _tile_rows(blocks * dilation + min(dilation, over), dilation, most)
    return rows, _pad_against_aliasing(rows * channels), _pad_against_aliasing(rows * width)


def _tile_rows(rows: int, dilation: int, most: int) -> int:
    """Rows of a tile, a multiple of the dilation near `most`, with which all tiles together take the least time."""
    if rows <= most:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)
    return min(choices, key=lambda count: math.ceil(rows / count) * (4 + estimated_cost(count)))
