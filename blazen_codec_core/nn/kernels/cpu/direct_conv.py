"""Direct convolution (implicit GEMM): no im2col buffer, accumulators in registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from . import arguments
from .arguments import NO_EPILOGUE, DirectFilter, EpilogueArgs, Packed, Rows, Signal, Terms, epilogue_args, signal_args, signature
from .elementwise import apply_epilogue
from .jit import jit
from .packing import bias_or_zeros, gemm_panel, pack_panels, panel_vectors, unpack_panels
from .simd import LANES

_TILE_VALUES = 1 << 15
"""Values of the signal that are processed for one panel of weights after the other."""


@jit(signature(Signal, DirectFilter, EpilogueArgs, Signal))
def _convolve(signal: Any, packed: Any, epilogue: Any, output: Any) -> None:
    """Convolve all signals: tiles inside panels of weights if reading those dominates, else panels inside tiles."""
    x, w, after, y = Signal(*signal), DirectFilter(*packed), EpilogueArgs(*epilogue), Signal(*output)
    terms, width = Terms(w.taps, w.tap, w.depth), w.vectors * LANES
    tile = max(1, -(-y.frames // max(1, y.frames * w.row // _TILE_VALUES)))
    panels, tiles = y.channels // width, -(-y.frames // tile)
    weight_bound = w.parts * w.taps * w.depth * y.channels > w.row * y.frames
    for number in range(y.batch):
        src, dst = x.address + 4 * number * x.batch_stride, y.address + 4 * number * y.batch_stride
        for unit in range(panels * tiles):
            panel, index = (unit // tiles, unit % tiles) if weight_bound else (unit % panels, unit // panels)
            first, col = index * tile, panel * width
            count = min(tile, y.frames - first)
            target, init = Rows(dst + 4 * (first * y.channels + col), y.channels), Rows(w.bias + 4 * col, 0)
            for part in range(w.parts):
                source = Rows(src + 4 * (first * w.row + part * w.reach), w.row)
                gemm_panel(w.vectors, source, terms, w.weight + 4 * (panel * w.panel + part * w.part), init, target, count)
                init = target
            if weight_bound:
                apply_epilogue(after, y, number, first, first + count, col, col + width)
            elif col + width == y.channels:
                apply_epilogue(after, y, number, first, first + count, 0, y.channels)


class DirectConv1d(FusedConv1d):
    """Convolution of float32 signals on a CPU, without a copy of their windows; see `interface.Conv1dKernel`.

    Args:
        weight: `(kernel, in, out)`.
        stride: In frames, as is `dilation`.
    """

    needs_bucketing = False

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1) -> None:
        kernel, self._channels, self._out = self._shape = weight.shape
        self._stride, self._reach = stride, (kernel - 1) * dilation + 1 - stride
        taps, depth = (1, kernel * self._channels) if dilation == 1 else (kernel, self._channels)
        terms = Terms(taps, dilation * self._channels, depth)
        self._packed = Packed(pack_panels(weight.reshape(-1, self._out)), bias_or_zeros(bias, weight))
        vectors = panel_vectors(self._out)
        geometry = (vectors, taps * depth * vectors * LANES, 1, 0, stride * self._channels, 0)
        self._filter = tuple(DirectFilter(*geometry, *terms, *self._packed.addresses))
        self._convolve = _convolve.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        return (unpack_panels(self._packed[0]).reshape(self._shape),)

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        source = signal_args(x, frames * self._stride + self._reach, self._channels)
        y = arguments.allocate(source[2], frames, self._out)
        output = signal_args(y)
        after, _copies = NO_EPILOGUE if epilogue is IDENTITY else epilogue_args(epilogue, output)
        self._convolve(source, self._filter, after, output)
        return y


class SharedDirectConv1d(DirectConv1d):
    """`DirectConv1d` with weights that another kernel has packed, in parts.

    Args:
        packed: First the weights `(panels, parts, stride * in, width)`, of which some parts are taps; third the bias.
        parts: Numbers of the parts that are the taps, evenly spaced.
        dilation: In blocks of `stride` frames.
    """

    def __init__(self, packed: Packed, parts: range, channels: int, stride: int, dilation: int) -> None:
        panels, count, block, width = packed[0].shape
        self._packed, self._parts, self._channels, self._out = packed, parts, channels, panels * width
        self._stride, self._reach = stride, ((len(parts) - 1) * dilation * block + block) // channels - stride
        geometry = (width // LANES, count * block * width, len(parts), parts.step * block * width, block, dilation * block)
        weight, bias = packed.addresses[0] + 4 * parts.start * block * width, packed.addresses[2]
        self._filter = tuple(DirectFilter(*geometry, *Terms(1, 0, block), weight, bias))
        self._convolve = _convolve.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        taps = torch.stack([unpack_panels(self._packed[0][:, part]) for part in self._parts])
        return (taps.reshape(-1, self._channels, self._out),)
