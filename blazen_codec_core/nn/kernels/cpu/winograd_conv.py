"""Winograd convolution F(m, r): fewer multiplications than taps times outputs; see `winograd`.

With dilation d, a Winograd tile is m * d frames and has d rows. Row q = b * d + p of the transformed signal begins at frame p of
tile b, and takes every d-th frame from there. For F(4, 3) and d = 3, row 1 begins at frame 1 and yields frames 1, 4, 7 and 10.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST, WinogradTransform, untransformed_tap
from .elementwise import EPILOGUE_TYPE, apply_epilogue, epilogue_args
from .jit import array, jit_parallel, num_threads_for
from .microkernel import address, estimated_cost
from .packing import bias_or_zeros, gemm_panel, pack_panels
from .reductions import linear_transform
from .simd import LANES

_ZERO = np.float32(0)
_MIN_ROWS, _MAX_ROWS = 36, 96
"""Rows of the transformed signal that are multiplied together."""
_TRANSFORMED_VALUES = 1 << 17
"""Values of a transformed tile, which stays in cache."""
_ALIASING_STRIDE, _PADDING = 1024, 32
"""Values between addresses that compete for the same cache lines; values of two lines."""
_TRANSFORMS: tuple[WinogradTransform, ...] = (F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST)


def _dispatch(functions: Sequence[Any]) -> Any:
    """Function that calls the one whose number is its first argument."""
    first, others = functions[0], _dispatch(functions[1:]) if functions[1:] else None

    @njit
    def call(number, source, step, init, init_step, out, out_step, channels):  # type: ignore[no-untyped-def]
        if number == 0 or others is None:
            first(source, step, init, init_step, out, out_step, channels)
        else:
            others(number - 1, source, step, init, init_step, out, out_step, channels)

    return call


_transform_row = _dispatch([linear_transform(transform.input_transform, from_init=False) for transform in _TRANSFORMS])
_transform_back = _dispatch([linear_transform(transform.output_transform, from_init=True) for transform in _TRANSFORMS])


@njit
def _input_transform(transform, m, x, dilation, first, end, out, offset, edge):  # type: ignore[no-untyped-def]
    """Input transform (Bᵀd) of rows `first` to `end`, into `out` as `(points, (row - offset) * channels)`.

    Frames past the end of the signal are zeros, by way of the scratch `edge`.
    """
    window, channels = edge.shape[0], x.shape[1]
    for q in range(first, end):
        frame = q // dilation * m * dilation + q % dilation
        src, step = address(x[frame:]), dilation * channels
        if frame + (window - 1) * dilation >= x.shape[0]:
            edge[:] = _ZERO
            for i in range(window):
                if frame + i * dilation < x.shape[0]:
                    edge[i] = x[frame + i * dilation]
            src, step = address(edge), channels
        dst = address(out[0, (q - offset) * channels :])
        _transform_row(transform, src, step, dst, 0, dst, out.shape[1], channels)


@njit
def _output_transform(transform, products, dilation, first, end, bias, y, col, edge):  # type: ignore[no-untyped-def]
    """Output transform (Aᵀ) of products `(points, rows * width)` into the frames of `y`, from channel `col` on.

    The result is added to the bias, or to `y` where the bias's address is 0. Tiles past the end go through the scratch `edge`.
    """
    m, width = edge.shape
    for q in range(first, end):
        frame = q // dilation * m * dilation + q % dilation
        valid = min(m, (y.shape[0] - frame - 1) // dilation + 1)
        dst, step = address(y[frame:, col:]), dilation * y.shape[1]
        if valid < m:
            for i in range(valid):
                for c in range(width):
                    edge[i, c] = y[frame + i * dilation, col + c]
            dst, step = address(edge), width
        init, init_step = (bias, 0) if bias else (dst, step)
        src = address(products[0, (q - first) * width :])
        _transform_back(transform, src, products.shape[1], init, init_step, dst, step, width)
        if valid < m:
            for i in range(valid):
                for c in range(width):
                    y[frame + i * dilation, col + c] = edge[i, c]


@njit
def _transformed_gemms(  # type: ignore[no-untyped-def]
    transform_and_tap, x, dilation, weight, untransformed, bias, first, end, panels, transformed_rows, products, last_frames,
    zeros, epilogue, signal, y,
):  # fmt: skip
    """Multiply rows `first` to `end` of a tile by panels `panels[0]` to `panels[1]`, point by point, and transform back.

    The untransformed tap, if there is one, is a GEMM of the signal itself.
    """
    transform, tap = transform_and_tap
    (m, width), points, channels = last_frames.shape, products.shape[0], x.shape[1]
    start, stop = first // dilation * m * dilation, min(-(-end // dilation) * m * dilation, y.shape[0])
    for panel in range(panels[0], panels[1]):
        col = panel * width
        for i in range(points + (tap >= 0)):  # the tap goes through the same call, which is compiled once
            if i < points:
                src, count, values, init = address(transformed_rows[i]), end - first, address(weight[panel, i]), address(zeros)
                dst, dst_row = address(products[i]), width
            else:
                src, count, values = address(x[start + tap * dilation :]), stop - start, address(untransformed[panel])
                init, dst, dst_row = address(bias[col:]), address(y[start:, col:]), y.shape[1]
            gemm_panel(width // LANES, src, channels, 1, 0, channels, values, init, dst, dst_row, count)
        _output_transform(transform, products, dilation, first, end, address(bias[col:]) if tap < 0 else 0, y, col, last_frames)
        apply_epilogue(epilogue, signal, address(y), y.shape[1], start, stop, col, col + width)


@jit_parallel("void(i8, f4[:, ::1], i8, i8, f4[:, ::1], f4[:, :, ::1], i8, i8)")
def _transform_all_rows(
    transform: int, x: Any, dilation: int, rows: int, transformed_rows: Any, edge: Any, m: int, parts: int
) -> None:
    share = -(-rows // parts)
    for part in prange(parts):
        first, end = part * share, min(rows, (part + 1) * share)
        _input_transform(transform, m, x, dilation, first, end, transformed_rows, 0, edge[part])


@jit_parallel(
    "void(UniTuple(i8, 2), f4[:, ::1], i8, f4[:, :, :, ::1], f4[:, :, ::1], f4[::1], i8, i8, f4[:, :, ::1], "
    f"f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[::1], {EPILOGUE_TYPE}, i8, f4[:, ::1], i8)"
)
def _convolve(
    transform_and_tap: Any, x: Any, dilation: int, weight: Any, untransformed: Any, bias: Any, rows: int, tile: int,
    transformed_rows: Any, products: Any, input_edge: Any, output_edge: Any, zeros: Any, epilogue: Any, signal: int, y: Any,
    parts: int,
) -> None:  # fmt: skip
    """Convolve one signal. Threads share its tiles; or, of a single tile that is transformed already, the panels of weights."""
    panels, m = weight.shape[0], output_edge.shape[1]
    tiles = -(-rows // tile)
    share = -(-(panels if tiles == 1 else tiles) // parts)
    for part in prange(parts):
        thread = np.int64(part)  # numba counts parts in unsigned integers, which signed ones would turn into floats
        begin, stop = thread * share, (thread + 1) * share
        transformed = transformed_rows[0 if tiles == 1 else thread]
        thread_tiles = (0, 1) if tiles == 1 else (begin, min(stop, tiles))
        thread_panels = (begin, min(stop, panels)) if tiles == 1 else (0, panels)
        for index in range(thread_tiles[0], thread_tiles[1]):
            first, end = index * tile, min(rows, (index + 1) * tile)
            if tiles > 1:
                _input_transform(transform_and_tap[0], m, x, dilation, first, end, transformed, first, input_edge[thread])
            _transformed_gemms(
                transform_and_tap, x, dilation, weight, untransformed, bias, first, end, thread_panels, transformed,
                products[thread], output_edge[thread], zeros, epilogue, signal, y,
            )  # fmt: skip


class WinogradConv1d(FusedConv1d):
    """Winograd convolution; see `interface.Conv1dKernel`.

    Args:
        transform: F(m, r) with r = `kernel`.
        weight: `(kernel, stride * in, out)`, where the signal is read as blocks of `stride` frames.
    """

    needs_bucketing = False

    def __init__(self, transform: WinogradTransform, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> None:
        _, self._channels, self._out = weight.shape
        self._dilation, self._m, self._window = dilation, transform.frames, transform.input_transform[0].shape[1]
        filter_transform = torch.from_numpy(transform.filter_transform)
        by_point = torch.einsum("pk,kio->pio", filter_transform, weight.detach().double()).float()
        by_panel = torch.stack([pack_panels(point) for point in by_point], dim=1).contiguous()
        tap = untransformed_tap(transform)
        tap = -1 if tap is None else tap
        self._points, self._width = by_panel.shape[1], by_panel.shape[3]
        self._filter = (_TRANSFORMS.index(transform), tap)
        untransformed = pack_panels(weight.detach()[tap])
        self._weights = [array(values) for values in (by_panel, untransformed, bias_or_zeros(bias, weight))]
        self._zeros = array(weight.new_zeros(self._width))

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        d, points, width = self._dilation, self._points, self._width
        blocks, over = divmod(frames, self._m * d)
        rows = blocks * d + min(d, over)
        parts = num_threads_for(rows * self._channels * width)
        most = max(_MIN_ROWS, min(_MAX_ROWS, _TRANSFORMED_VALUES // (points * self._channels)))
        tile = _tile_rows(rows, d, parts, most)
        # the output is allocated below the scratch, which is freed first: the heap does not fragment
        y, (arguments, _alive) = x.new_empty(x.shape[0], frames, self._out), epilogue_args(epilogue)
        signal_row, product_row = (_pad_against_aliasing(tile * columns) for columns in (self._channels, width))
        signal = array(x.new_empty(parts if tile < rows else 1, points, signal_row))
        products, input_edge = x.new_empty(parts, points, product_row), x.new_empty(parts, self._window, self._channels)
        scratch = [signal, *(array(values) for values in (products, input_edge, x.new_empty(parts, self._m, width)))]
        for number, (row, out) in enumerate(zip(x, array(y), strict=True)):
            length = row.numel() // self._channels * self._channels
            src = array(row.contiguous()).reshape(-1)[:length].reshape(-1, self._channels)
            if tile >= rows:
                _transform_all_rows(self._filter[0], src, d, rows, signal[0], scratch[2], self._m, parts)
            tiling = (src, d, *self._weights, rows, tile, *scratch, self._zeros)
            _convolve(self._filter, *tiling, arguments, number, out, parts)
        return y


def _pad_against_aliasing(values: int) -> int:
    """Row length of at least `values`, such that equal columns of consecutive rows do not compete for the same cache lines."""
    return -(-(values - _PADDING) // _ALIASING_STRIDE) * _ALIASING_STRIDE + _PADDING


@functools.lru_cache(maxsize=1024)
def _tile_rows(rows: int, dilation: int, parts: int, most: int) -> int:
    """Rows of a tile, a multiple of the dilation near `most`, with which all threads end soonest."""
    if rows <= most * parts:
        return rows
    choices = range(-(-most // (2 * dilation)) * dilation, most + dilation, dilation)

    def time(count: int) -> int:
        tiles = math.ceil(rows / count)
        return math.ceil(tiles / parts) * (4 + estimated_cost(count))

    return min(choices, key=time)
