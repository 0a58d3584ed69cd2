"""Winograd convolution F(m, r): fewer multiplications than taps times outputs; see `winograd`.

With dilation d, a Winograd tile is m * d frames and has d rows. Row q = b * d + p of the transformed signal begins at frame p of
tile b, and takes every d-th frame from there. For F(4, 3) and d = 3, row 1 begins at frame 1 and yields frames 1, 4, 7 and 10.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from numba import njit
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform, tap_points, untransformed_tap
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
from .direct_conv import DirectConv1d, SharedDirectConv1d
from .elementwise import apply_epilogue, copy_row
from .jit import jit, variant
from .microkernel import estimated_cost
from .packing import K_BLOCK, bias_or_zeros, gemm_panel, pack_panels, panel_vectors, unpack_panels
from .reductions import linear_transform
from .simd import LANES

_MIN_ROWS, _MAX_ROWS = 36, 96
"""Rows of the transformed signal that are multiplied together."""
_TRANSFORMED_VALUES = 1 << 17
"""Values of a transformed tile, which stays in cache."""
_TRANSFORMED_ROWS = 48
"""Input channels of a weight that are transformed together, a multiple of a BLAS's tile, at whose edge it may round otherwise."""
_ALIASING_STRIDE, _PADDING = 1024, 32
"""Values between addresses that compete for the same cache lines; values of two lines."""
_TRANSFORMS: tuple[WinogradTransform, ...] = (F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST)


def _dispatch(name: str, functions: Sequence[Any]) -> Any:
    """Function that calls the one whose number is its first argument."""
    zero, one, two, three, four = functions

    @njit
    @variant(name)
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


_transform_row = _dispatch("input", [linear_transform(transform.input_transform, from_init=False) for transform in _TRANSFORMS])
_transform_back = _dispatch("output", [linear_transform(transform.output_transform, from_init=True) for transform in _TRANSFORMS])


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
def _convolve_tile(x, w, s, after, y, number, signals, first, end):  # type: ignore[no-untyped-def]
    """Transform rows `first` to `end` of some signals, multiply them by every panel, point by point, and transform back.

    The untransformed tap, if there is one, is a GEMM of the signal itself.
    """
    terms, d, rows = Terms(1, 0, w.channels), w.dilation, end - first
    source, out = x.address + 4 * number * x.batch_stride, y.address + 4 * number * y.batch_stride
    transformed, products = Rows(s.transformed, s.transformed_stride), Rows(s.products, s.products_stride)
    for k in range(signals):
        target = Rows(s.transformed + 4 * k * rows * w.channels, s.transformed_stride)
        signal, frames = source + 4 * k * x.batch_stride, x.frames * x.channels // w.channels
        _input_transform(w, signal, frames, first, end, target, s.input_edge)
    start, stop = first // d * w.frames * d, min(-(-end // d) * w.frames * d, y.frames)
    for panel in range(y.channels // w.width):
        col, size = panel * w.width, 4 * w.channels * w.width
        bias = w.bias + 4 * col
        for i in range(w.points + (w.tap >= 0) * signals):  # the tap goes through the same call, which is compiled once
            if i < w.points:
                src, count, init = transformed.address + 4 * i * transformed.stride, signals * rows, w.zeros
                values, target = (
                    w.weight + (panel * w.points + i) * size,
                    Rows(products.address + 4 * i * products.stride, w.width),
                )
            else:
                k = i - w.points
                src = source + 4 * (k * x.batch_stride + (start + w.tap * d) * w.channels)
                values, count, init = w.untransformed + panel * size, stop - start, bias
                target = Rows(out + 4 * (k * y.batch_stride + start * y.channels + col), y.channels)
            gemm_panel(w.width // LANES, Rows(src, w.channels), terms, values, Rows(init, 0), target, count)
        bias = bias if w.tap < 0 else 0
        for k in range(signals):
            product = Rows(s.products + 4 * k * rows * w.width, s.products_stride)
            column = out + 4 * (k * y.batch_stride + col)
            _output_transform(w, product, first, end, bias, column, y.frames, y.channels, s.output_edge)
            apply_epilogue(after, y, number + k, start, stop, col, col + w.width)


@jit(signature(Signal, WinogradFilter, WinogradScratch, EpilogueArgs, Signal))
def _convolve(signal: Any, packed: Any, scratch: Any, epilogue: Any, output: Any) -> None:
    x, w, s = Signal(*signal), WinogradFilter(*packed), WinogradScratch(*scratch)
    after, y = EpilogueArgs(*epilogue), Signal(*output)
    over = y.frames % (w.frames * w.dilation)
    rows = y.frames // (w.frames * w.dilation) * w.dilation + min(w.dilation, over)
    for number in range(0, y.batch, s.signals):
        for first in range(0, rows, s.rows):
            _convolve_tile(x, w, s, after, y, number, min(s.signals, y.batch - number), first, min(rows, first + s.rows))


class WinogradConv1d(FusedConv1d):
    """Winograd convolution; see `interface.Conv1dKernel`.

    Args:
        transform: F(m, r) with r = `kernel`.
        weight: `(kernel, stride * in, out)`, where the signal is read as blocks of `stride` frames.
        holds_weights: Keep the taps that the transformed weight does not hold, so that `weights` can return all.
    """

    needs_bucketing = False

    def __init__(
        self,
        transform: WinogradTransform,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int = 1,
        stride: int = 1,
        *,
        holds_weights: bool = True,
    ) -> None:
        weight = weight.detach()
        self._kernel, self._block, self._out = kernel, _, _ = weight.shape
        self._stride, self._channels = stride, self._block // stride
        self._reach, self._dilation = (kernel - 1) * dilation * stride, dilation
        self._frames, window = transform.frames, transform.input_transform[0].shape[1]
        self._points, self._width = len(transform.filter_transform), panel_vectors(self._out) * LANES
        self._tap_points, self._tap = tap_points(transform), untransformed_tap(transform)
        held = {*self._tap_points, self._tap}
        self._rest = [tap for tap in range(kernel) if tap not in held] if holds_weights else []
        self._packed = Packed(
            _transformed(transform, weight, self._width),
            weight.new_empty(0) if self._tap is None else pack_panels(weight[self._tap]),
            bias_or_zeros(bias, weight),
            weight.new_zeros(self._width),
            weight[self._rest],
        )
        tap = -1 if self._tap is None else self._tap
        geometry = (_TRANSFORMS.index(transform), tap, self._frames, window, self._points, self._block, self._width, dilation)
        self._filter = tuple(WinogradFilter(*geometry, *self._packed.addresses[:4]))
        self._edges = (window, self._block), (self._frames, self._width)
        self._most = max(_MIN_ROWS, min(_MAX_ROWS, _TRANSFORMED_VALUES // (self._points * self._block)))
        self._convolve = self.compiled()

    @staticmethod
    def compiled() -> Callable[..., None]:
        """The kernel, compiled once in a process."""
        return _convolve.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        transformed, untransformed, *_, rest = (self._packed[number] for number in range(5))
        weight = arguments.allocate(self._kernel, self._block, self._out)
        weight[self._rest] = rest
        for tap, (point, factor) in self._tap_points.items():
            weight[tap] = unpack_panels(transformed[:, point]) / factor
        if self._tap is not None:
            weight[self._tap] = unpack_panels(untransformed)
        return (weight.reshape(-1, self._channels, self._out),)

    def direct(self) -> DirectConv1d | None:
        """The direct convolution by the same packed weight; `None` if it does not hold every tap, or would round otherwise."""
        points = [point for _, (point, factor) in sorted(self._tap_points.items()) if factor == 1]
        if len(points) != self._kernel or self._block % K_BLOCK:
            return None
        parts = range(points[0], points[-1] + 1, points[1] - points[0])
        return SharedDirectConv1d(self._packed, parts, self._channels, self._stride, self._dilation)

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        source = signal_args(x, frames * self._stride + self._reach, self._channels)
        # the output is allocated below the scratch, which is freed first: the heap does not fragment
        allocate = arguments.allocate
        y = allocate(source[2], frames, self._out)
        output = signal_args(y)
        tiling = *_, transformed_stride, products_stride = _tiling(
            source[2], frames, self._frames, self._dilation, self._most, self._block, self._width
        )
        transformed, products = allocate(self._points, transformed_stride), allocate(self._points, products_stride)
        input_edge, output_edge = allocate(*self._edges[0]), allocate(*self._edges[1])
        after, _copies = NO_EPILOGUE if epilogue is IDENTITY else epilogue_args(epilogue, output)
        addresses = (transformed.data_ptr(), products.data_ptr(), input_edge.data_ptr(), output_edge.data_ptr())
        self._convolve(source, self._filter, (*tiling, *addresses), after, output)
        return y


def _transformed(transform: WinogradTransform, weight: Tensor, width: int) -> Tensor:
    """Transformed weight `(panels, points, channels, width)`; the intermediate, some rows at a time, is in float64."""
    matrix = torch.from_numpy(transform.filter_transform)
    taps, channels, out = weight.shape
    packed = weight.new_empty(out // width, len(matrix), channels, width)
    for first in range(0, channels, _TRANSFORMED_ROWS):
        rows = weight[:, first : first + _TRANSFORMED_ROWS].double()
        by_point = (matrix @ rows.reshape(taps, -1)).reshape(len(matrix), -1, out // width, width)
        packed[:, :, first : first + _TRANSFORMED_ROWS] = by_point.permute(2, 0, 1, 3)
    return packed


def _pad_against_aliasing(values: int) -> int:
    """Row length of at least `values`, such that equal columns of consecutive rows do not compete for the same cache lines."""
    return -(-(values - _PADDING) // _ALIASING_STRIDE) * _ALIASING_STRIDE + _PADDING


@functools.lru_cache(maxsize=1024)
def _tiling(batch: int, frames: int, m: int, dilation: int, most: int, channels: int, width: int) -> tuple[int, int, int, int]:
    """Signals of a tile and rows of each, and the strides of its scratch before and after the GEMMs."""
    blocks, over = divmod(frames, m * dilation)
    of_signal = blocks * dilation + min(dilation, over)
    rows = _tile_rows(of_signal, dilation, most, width // LANES)
    signals = max(1, min(batch, most // of_signal))  # short signals share the reading of weights
    return signals, rows, _pad_against_aliasing(signals * rows * channels), _pad_against_aliasing(signals * rows * width)


def _tile_rows(rows: int, dilation: int, most: int, vectors: int) -> int:
    """Rows of a tile, a multiple of the dilation near `most`, with which all tiles together take the least time."""
    if rows <= most:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)
    return min(choices, key=lambda count: math.ceil(rows / count) * (4 + estimated_cost(count, vectors)))
