"""Elementwise kernels in one pass, where a chain of PyTorch's operations makes four.

They process a whole signal, or the output of another kernel while it is still in L1 (see `epilogue`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numba import njit
from torch import Tensor

from ..epilogue import ELU, GAIN, GELU, NONE, SILU, SNAKE, Epilogue
from ..memory_format import frame_contiguous
from . import vecmath
from .arguments import Activation, Assembly, assembly_args, signature
from .jit import jit, variant
from .microkernel import int32_array
from .simd import LANES, CountedLoop, Vector, address_of, intrinsic_from


def _vectorized(function: Callable[[Vector, Vector, Vector], Vector], lanes: int = LANES, *, broadcast: bool = False) -> Any:
    """Numba intrinsic that applies a function of three vectors along a signal; its output may be its input.

    It is called with `(x, x_step, out, out_step, a, b, ab_step, count)`: addresses, the steps between `count` vectors in values,
    and two operands of the function beside `x`. With `broadcast`, these are one value each for all lanes.
    """

    def emit(builder: Any, x: Any, x_step: Any, out: Any, out_step: Any, a: Any, b: Any, ab_step: Any, count: Any) -> None:
        loop = CountedLoop(builder, count, [address_of(builder, address) for address in (x, out, a, b)])
        x, out, a, b = loop.phis
        load = Vector.broadcast_load if broadcast else Vector.load
        function(Vector.load(builder, x, lanes), load(builder, a, lanes), load(builder, b, lanes)).store(out)
        steps = (x_step, out_step, ab_step, ab_step)
        loop.advance([builder.gep(address, [step]) for address, step in zip(loop.phis, steps, strict=True)])

    return intrinsic_from(emit)


_QUAD = 4
"""Values of the shorter vectors in which the channels after the last whole vector are processed."""
_ZERO = -1
"""Activation that writes zeros, beside those of `epilogue`."""


def _activation(lanes: int) -> Any:
    """Function that applies an `Activation` to `count` vectors; `x` and `out` are addresses."""
    snake, elu = _vectorized(vecmath.snake, lanes), _vectorized(lambda x, a, b: vecmath.elu(x), lanes)
    gelu, silu = _vectorized(lambda x, a, b: vecmath.gelu(x), lanes), _vectorized(lambda x, a, b: x * vecmath.sigmoid(x), lanes)
    gain = _vectorized(lambda x, a, b: x * a, lanes)
    copy, zero = _vectorized(lambda x, a, b: x, lanes), _vectorized(lambda x, a, b: x.splat_like(0.0), lanes)

    @njit
    @variant(lanes)
    def activate(activation, x, out, count):  # type: ignore[no-untyped-def]
        if activation.kind == SNAKE:
            snake(x, lanes, out, lanes, activation.alpha, activation.inverse, lanes, count)
        elif activation.kind == ELU:
            elu(x, lanes, out, lanes, x, x, lanes, count)
        elif activation.kind == GELU:
            gelu(x, lanes, out, lanes, x, x, lanes, count)
        elif activation.kind == SILU:
            silu(x, lanes, out, lanes, x, x, lanes, count)
        elif activation.kind == GAIN:
            gain(x, lanes, out, lanes, activation.alpha, activation.inverse, lanes, count)
        elif activation.kind == _ZERO:
            zero(out, lanes, out, lanes, out, out, lanes, count)
        else:
            copy(x, lanes, out, lanes, x, x, lanes, count)

    return activate


_activate_vectors, _activate_quads, _activate_values = (_activation(lanes) for lanes in (LANES, _QUAD, 1))


def _operation(name: str, function: Callable[[Vector, Vector, Vector], Vector], *, broadcast: bool = False) -> Any:
    """Function of the addresses of a row and of an operand, which writes to the row; `step` is 0 for one value as operand."""
    vectors, quads, values = (_vectorized(function, lanes, broadcast=broadcast) for lanes in (LANES, _QUAD, 1))
    step = 0 if broadcast else 1

    @njit
    @variant(name)
    def apply(row, operand, channels):  # type: ignore[no-untyped-def]
        if channels >= LANES:
            vectors(row, LANES, row, LANES, operand, operand, step * LANES, channels // LANES)
        if channels % LANES >= _QUAD:
            done = channels // LANES * LANES
            x, a = row + 4 * done, operand + 4 * step * done
            quads(x, _QUAD, x, _QUAD, a, a, step * _QUAD, (channels - done) // _QUAD)
        if channels % _QUAD:
            done = channels // _QUAD * _QUAD
            x, a = row + 4 * done, operand + 4 * step * done
            values(x, 1, x, 1, a, a, step, channels - done)

    return apply


_add, _scale = _operation("add", lambda x, a, b: x + a), _operation("scale", lambda x, a, b: x * a, broadcast=True)


@njit
def _activate_row(activation, x, out, channels):  # type: ignore[no-untyped-def]
    """Apply an `Activation` to the values of one frame, given as addresses."""
    kind, alpha, inverse = activation
    if channels >= LANES:
        _activate_vectors(activation, x, out, channels // LANES)
    if channels % LANES >= _QUAD:
        done = 4 * (channels // LANES * LANES)
        rest = Activation(kind, alpha + done, inverse + done)
        _activate_quads(rest, x + done, out + done, channels % LANES // _QUAD)
    if channels % _QUAD:
        done = 4 * (channels // _QUAD * _QUAD)
        rest = Activation(kind, alpha + done, inverse + done)
        _activate_values(rest, x + done, out + done, channels % _QUAD)


@njit
def copy_row(x, out, channels):  # type: ignore[no-untyped-def]
    """Copy a row of values, given as addresses; write zeros where the address `x` is 0."""
    _activate_row(Activation(NONE if x else _ZERO, 0, 0), x, out, channels)


@njit
def apply_epilogue(after, y, number, first, end, left, right):  # type: ignore[no-untyped-def]
    """Apply an epilogue to frames `first` to `end` and channels `left` to `right` of one output of the batch.

    Args:
        after: `EpilogueArgs`.
        y: `Signal`, the outputs.
        number: Number of the output in the batch.
    """
    if after.kind == NONE and not (after.scale or after.head_frames or after.residual):
        return
    activation = Activation(after.kind, after.alpha + 4 * left, after.inverse + 4 * left)
    is_run = right - left == y.channels and not (after.scale or after.alpha)  # frames that are treated alike are one row
    t = first
    while t < end:
        has_head = t < after.head_frames
        frames = (min(end, after.head_frames) if has_head else end) - t if is_run else 1
        count = frames * (right - left)
        offset = 4 * (t * y.channels + left)
        row = y.address + 4 * number * y.batch_stride + offset
        if after.scale:
            _scale(row, after.scale + 4 * t, count)
        if after.kind != NONE:
            _activate_row(activation, row, row, count)
        addend, first_value = after.residual, number * after.residual_batch - after.head_frames * y.channels
        if has_head:
            addend, first_value = after.head, number * after.head_batch
        if addend:
            _add(row, addend + 4 * first_value + offset, count)
        t += frames


@jit(signature(Assembly))
def _assemble(assembly: Any) -> None:
    """Write the parts of each signal, frame by frame where each channel has its own parameters."""
    a = Assembly(*assembly)
    zero, row = Activation(_ZERO, 0, 0), 4 * a.channels
    for number in range(a.batch):
        x, out = a.x + 4 * number * a.x_batch, a.out + 4 * number * a.out_batch
        length = min(a.frames, int32_array(a.lengths, (a.batch,))[number]) if a.lengths else a.frames
        rest = a.out_frames - a.tail_frames - a.left - length
        for activation, source, frames in (  # all go through the same call, which is compiled once
            (Activation(NONE, 0, 0), a.tail + 4 * number * a.tail_batch, a.tail_frames),
            (zero, out, a.left),
            (Activation(a.kind, a.alpha, a.inverse), x, length),
            (zero, out, rest),
        ):
            rows, channels = (frames, a.channels) if activation.alpha else (1, frames * a.channels)
            for t in range(rows):
                _activate_row(activation, source + t * row, out + t * row, channels)
            out += frames * row


class CpuElementwise:
    """Elementwise kernels for float32 signals; see `interface.Elementwise`."""

    def __init__(self) -> None:
        self._assemble = _assemble.compiled()

    def write_activation(self, activation: Epilogue, x: Tensor, out: Tensor) -> None:
        """Write the activation of a signal to another one of its shape."""
        x = x if x.is_contiguous() else frame_contiguous(x)
        self._assemble(assembly_args(x[:, :0], x, 0, activation, out, None))

    def assemble_input(
        self,
        tail: Tensor,
        x: Tensor,
        left: int,
        activation: Epilogue,
        out: Tensor,
        lengths: Tensor | None = None,
        *,
        allow_tf32: bool = False,
    ) -> None:
        """Write the input of a convolution to `out`; see `layers.padding.assemble_input`."""
        x, tail = x if x.is_contiguous() else frame_contiguous(x), tail if tail.is_contiguous() else frame_contiguous(tail)
        counts = None if lengths is None else lengths.to(torch.int32)
        self._assemble(assembly_args(tail, x, left, activation, out, counts))
