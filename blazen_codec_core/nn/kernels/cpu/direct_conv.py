"""Direct convolution (implicit GEMM): no im2col buffer, accumulators in registers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..epilogue import IDENTITY, Epilogue
from ..interface import FusedConv1d
from ..memory_format import frame_contiguous
from . import arguments
from .arguments import NO_EPILOGUE, DirectFilter, EpilogueArgs, Packed, Rows, Signal, Terms, epilogue_args, signal_args, signature
from .elementwise import apply_epilogue, copy_row
from .jit import jit
from .packing import bias_or_zeros, gemm_panel, pack_panels, panel_vectors, unpack_panels
from .simd import LANES

_TILE_VALUES = 1 << 15
"""Values of the signal that are processed for one panel of weights after the other."""
_WEIGHT_BOUND_TILE_VALUES = 1 << 19
"""Values of the signal for which a panel of weights is read, where reading weights dominates."""
_EDGE_FRAMES = 128
"""Frames of the scratch through which a partial panel's products go."""


@jit(signature(Signal, DirectFilter, EpilogueArgs, Signal, int))
def _convolve(signal: Any, packed: Any, epilogue: Any, output: Any, edge: int) -> None:
    """Convolve all signals: the tiles of all inside panels of weights if reading those dominates, else panels inside tiles.

    Rows of a GEMM are the frames of one signal, or the same frame of all signals if these are short. The last panel may be wider
    than the channels that are left. Its products go through the scratch `edge`.
    """
    x, w, after, y = Signal(*signal), DirectFilter(*packed), EpilogueArgs(*epilogue), Signal(*output)
    terms, width = Terms(w.taps, w.tap, w.depth), w.vectors * LANES
    panels = -(-y.channels // width)
    weight_bound = w.parts * w.taps * w.depth * y.channels > w.row * y.frames
    across = weight_bound and y.batch > y.frames and panels * width == y.channels
    if across:
        gemms, rows, x_gemm, x_row, y_gemm, y_row = y.frames, y.batch, w.row, x.batch_stride, y.channels, y.batch_stride
        tile = rows
    else:
        gemms, rows, x_gemm, x_row, y_gemm, y_row = y.batch, y.frames, x.batch_stride, w.row, y.batch_stride, y.channels
        most = _WEIGHT_BOUND_TILE_VALUES if weight_bound else _TILE_VALUES
        tile = max(1, -(-rows // max(1, rows * w.row // most)))
    tiles = -(-rows // tile)
    blocks = tiles * gemms
    for unit in range(panels * blocks):
        panel, block = (unit // blocks, unit % blocks) if weight_bound else (unit % panels, unit // panels)
        number, first, col = block // tiles, block % tiles * tile, panel * width
        src, dst = x.address + 4 * number * x_gemm, y.address + 4 * (number * y_gemm + col)
        end, right = min(rows, first + tile), min(y.channels, col + width)
        is_partial = right < col + width
        step = _EDGE_FRAMES if is_partial else end - first
        for start in range(first, end, step):
            out, count = dst + 4 * start * y_row, min(step, end - start)
            target, init = Rows(edge, width) if is_partial else Rows(out, y_row), Rows(w.bias + 4 * col, 0)
            for part in range(w.parts):
                source = Rows(src + 4 * (start * x_row + part * w.reach), x_row)
                gemm_panel(w.vectors, source, terms, w.weight + 4 * (panel * w.panel + part * w.part), init, target, count)
                init = target
            if is_partial:
                for t in range(count):
                    copy_row(edge + 4 * t * width, out + 4 * t * y_row, right - col)
        signals, frames = ((0, y.batch), (0, y.frames)) if across else ((number, number + 1), (first, end))
        is_complete = number + 1 == gemms if across else weight_bound or right == y.channels
        if is_complete:
            for finished in range(signals[0], signals[1]):
                apply_epilogue(after, y, finished, frames[0], frames[1], col if weight_bound else 0, right)


def joined_signals(epilogue: Epilogue, x: Tensor) -> Epilogue | None:
    """Epilogue of all frames of a batch as one signal; `None` if its residual or scale do not allow it."""
    residual, head = epilogue.residual, epilogue.residual_head
    if epilogue.scale is not None or (head is not None and head.shape[1]):
        return None
    if residual is None:
        return epilogue
    if residual.shape[:2] != x.shape[:2] or not residual.is_contiguous():
        return None
    return epilogue.with_residual(residual.reshape(1, -1, residual.shape[2]))


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
        self._is_pointwise = kernel == stride == 1
        taps, depth = (1, kernel * self._channels) if dilation == 1 else (kernel, self._channels)
        terms = Terms(taps, dilation * self._channels, depth)
        missing = -self._out % LANES
        self._packed = Packed(
            pack_panels(F.pad(weight.detach().reshape(-1, self._out), (0, missing))),
            F.pad(bias_or_zeros(bias, weight), (0, missing)),
        )
        vectors = panel_vectors(self._out + missing)
        self._edge_width = vectors * LANES if missing else 0
        geometry = (vectors, taps * depth * vectors * LANES, 1, 0, stride * self._channels, 0)
        self._filter = tuple(DirectFilter(*geometry, *terms, *self._packed.addresses))
        self._convolve = _convolve.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        return (unpack_panels(self._packed[0])[:, : self._out].reshape(self._shape),)

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        if not x.is_contiguous():
            x = frame_contiguous(x)
        elif x.shape[0] > 1 and self._is_pointwise and x.shape[1] == frames and (joined := joined_signals(epilogue, x)):
            return self(x.reshape(1, -1, x.shape[2]), x.shape[0] * frames, joined).reshape(x.shape[0], frames, -1)
        source = signal_args(x, frames * self._stride + self._reach, self._channels)
        y = arguments.allocate(source[2], frames, self._out)
        output = signal_args(y)
        after, _copies = NO_EPILOGUE if epilogue is IDENTITY else epilogue_args(epilogue, output)
        edge = arguments.allocate(min(_EDGE_FRAMES, frames), self._edge_width) if self._edge_width else y
        self._convolve(source, self._filter, after, output, edge.data_ptr())
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
        self._packed, self._parts, self._channels, self._out, self._edge_width = packed, parts, channels, panels * width, 0
        self._is_pointwise = False
        self._stride, self._reach = stride, ((len(parts) - 1) * dilation * block + block) // channels - stride
        geometry = (width // LANES, count * block * width, len(parts), parts.step * block * width, block, dilation * block)
        weight, bias = packed.addresses[0] + 4 * parts.start * block * width, packed.addresses[2]
        self._filter = tuple(DirectFilter(*geometry, *Terms(1, 0, block), weight, bias))
        self._convolve = _convolve.compiled()

    def weights(self) -> tuple[Tensor, ...]:
        taps = torch.stack([unpack_panels(self._packed[0][:, part]) for part in self._parts])
        return (taps.reshape(-1, self._channels, self._out),)
