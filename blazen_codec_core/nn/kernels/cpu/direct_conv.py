"""Direct convolution (implicit GEMM): no im2col buffer, accumulators in registers."""

from __future__ import annotations

from typing import Any

from numba import prange
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from .elementwise import EPILOGUE_TYPE, apply_epilogue, epilogue_args
from .jit import jit_parallel, num_threads_for, require_float32_rows
from .packing import bias_or_zeros, gemm_panel, pack_panels, panel_vectors
from .simd import LANES

_TILE_VALUES = 1 << 15
"""Values of the signal that are processed for one panel of weights after the other."""


@jit_parallel(f"void(i8, i8, i8, UniTuple(i8, 4), i8, i8, {EPILOGUE_TYPE}, i8, i8, i8, i8, i8, i8)")
def _convolve(
    batch: int, x: int, x_batch: int, shape: Any, weight: int, bias: int, epilogue: Any, out: int, frames: int, channels: int,
    tile: int, vectors: int, parts: int,
) -> None:  # fmt: skip
    """Convolve all signals. Threads share the panels of weights if reading those dominates, else the tiles of the signal."""
    row, taps, tap, depth = shape
    width = vectors * LANES
    panels, tiles = channels // width, -(-frames // tile)
    weight_bound = taps * depth * channels > row * frames
    share = -(-panels // parts) * tiles if weight_bound else -(-tiles // parts) * panels
    for signal in range(batch):
        src, dst = x + 4 * signal * x_batch, out + 4 * signal * frames * channels
        for part in prange(parts):
            for unit in range(part * share, min(panels * tiles, (part + 1) * share)):
                panel, index = (unit // tiles, unit % tiles) if weight_bound else (unit % panels, unit // panels)
                first, col = index * tile, panel * width
                count = min(tile, frames - first)
                panel_weight, panel_bias = weight + 4 * panel * taps * depth * width, bias + 4 * col
                tile_src, tile_dst = src + 4 * first * row, dst + 4 * (first * channels + col)
                gemm_panel(vectors, tile_src, row, taps, tap, depth, panel_weight, panel_bias, tile_dst, channels, count)
                if weight_bound:
                    apply_epilogue(epilogue, signal, dst, channels, first, first + count, col, col + width)
                elif col + width == channels:
                    apply_epilogue(epilogue, signal, dst, channels, first, first + count, 0, channels)


class DirectConv1d(FusedConv1d):
    """Convolution of float32 signals on a CPU, without a copy of their windows; see `interface.Conv1dKernel`.

    Args:
        weight: `(kernel, in, out)`.
        stride: In frames, as is `dilation`.
    """

    needs_bucketing = False

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        kernel, channels, self._out = weight.shape
        self._row = stride * channels
        taps, depth = (1, kernel * channels) if dilation == 1 else (kernel, channels)
        self._shape = (self._row, taps, dilation * channels, depth)
        self._weight = pack_panels(weight.detach().reshape(-1, self._out))
        self._bias = bias_or_zeros(bias, weight)
        self._vectors = panel_vectors(self._out)

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        x = require_float32_rows(x)
        y = x.new_empty(x.shape[0], frames, self._out)
        parts = num_threads_for(frames * max(self._row, self._out))
        tile = -(-frames // (parts * max(1, frames * self._row // (parts * _TILE_VALUES))))
        arguments, _alive = epilogue_args(epilogue)
        weights = (self._shape, self._weight.data_ptr(), self._bias.data_ptr())
        signals = (y.shape[0], x.data_ptr(), x.stride(0))
        _convolve(*signals, *weights, arguments, y.data_ptr(), frames, self._out, tile, self._vectors, parts)
        return y
