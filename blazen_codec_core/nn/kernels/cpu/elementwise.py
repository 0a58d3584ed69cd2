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
from .jit import jit
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


_snake_vectors, _snake_values = (_vectorized(vecmath.snake, lanes) for lanes in (LANES, 1))
_elu_vectors, _elu_values = (_vectorized(lambda x, a, b: vecmath.elu(x), lanes) for lanes in (LANES, 1))
_gelu_vectors, _gelu_values = (_vectorized(lambda x, a, b: vecmath.gelu(x), lanes) for lanes in (LANES, 1))
_silu_vectors, _silu_values = (_vectorized(lambda x, a, b: x * vecmath.sigmoid(x), lanes) for lanes in (LANES, 1))
_gain_vectors, _gain_values = (_vectorized(lambda x, a, b: x * a, lanes) for lanes in (LANES, 1))
_copy_vectors, _copy_values = (_vectorized(lambda x, a, b: x, lanes) for lanes in (LANES, 1))
_zero_vectors, _zero_values = (_vectorized(lambda x, a, b: x.splat_like(0.0), lanes) for lanes in (LANES, 1))
_add = _vectorized(lambda x, a, b: x + a)
_scale = _vectorized(lambda x, a, b: x * a, broadcast=True)

_ZERO = -1
"""Activation that writes zeros, beside those of `epilogue`."""


@njit
def _activate_row(activation, x, out, channels):  # type: ignore[no-untyped-def]
    """Apply an `Activation` to the values of one frame, given as addresses."""
    kind, alpha, inverse = activation
    vectors, tail = channels // LANES, channels // LANES * LANES
    if vectors:
        if kind == SNAKE:
            _snake_vectors(x, LANES, out, LANES, alpha, inverse, LANES, vectors)
        elif kind == ELU:
            _elu_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        elif kind == GELU:
            _gelu_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        elif kind == SILU:
            _silu_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        elif kind == GAIN:
            _gain_vectors(x, LANES, out, LANES, alpha, inverse, LANES, vectors)
        elif kind == _ZERO:
            _zero_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        else:
            _copy_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
    if channels > tail:
        x, out, alpha, inverse = x + 4 * tail, out + 4 * tail, alpha + 4 * tail, inverse + 4 * tail
        if kind == SNAKE:
            _snake_values(x, 1, out, 1, alpha, inverse, 1, channels - tail)
        elif kind == ELU:
            _elu_values(x, 1, out, 1, x, x, 1, channels - tail)
        elif kind == GELU:
            _gelu_values(x, 1, out, 1, x, x, 1, channels - tail)
        elif kind == SILU:
            _silu_values(x, 1, out, 1, x, x, 1, channels - tail)
        elif kind == GAIN:
            _gain_values(x, 1, out, 1, alpha, inverse, 1, channels - tail)
        elif kind == _ZERO:
            _zero_values(x, 1, out, 1, x, x, 1, channels - tail)
        else:
            _copy_values(x, 1, out, 1, x, x, 1, channels - tail)


@njit
def copy_row(x, out, channels):  # type: ignore[no-untyped-def]
    """Copy a row of values, given as addresses; write zeros where the address `x` is 0."""
    vectors, rest = channels // LANES, channels % LANES
    offset = 4 * vectors * LANES
    if vectors and x:
        _copy_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
    elif vectors:
        _zero_vectors(out, LANES, out, LANES, out, out, LANES, vectors)
    if rest and x:
        _copy_values(x + offset, 1, out + offset, 1, x, x, 1, rest)
    elif rest:
        _zero_values(out + offset, 1, out + offset, 1, out, out, 1, rest)


@njit
def apply_epilogue(after, y, number, first, end, left, right):  # type: ignore[no-untyped-def]
    """Apply an epilogue to frames `first` to `end` and channels `left` to `right` of one output of the batch.

    The channels are full vectors.

    Args:
        after: `EpilogueArgs`.
        y: `Signal`, the outputs.
        number: Number of the output in the batch.
    """
    if after.kind == NONE and not (after.scale or after.head_frames or after.residual):
        return
    vectors = (right - left) // LANES
    activation = Activation(after.kind, after.alpha + 4 * left, after.inverse + 4 * left)
    for t in range(first, end):
        offset = 4 * (t * y.channels + left)
        row = y.address + 4 * number * y.batch_stride + offset
        if after.scale:
            _scale(row, LANES, row, LANES, after.scale + 4 * t, after.scale + 4 * t, 0, vectors)
        if after.kind != NONE:
            _activate_row(activation, row, row, right - left)
        if t < after.head_frames:
            addend = after.head + 4 * number * after.head_batch + offset
            _add(row, LANES, row, LANES, addend, addend, LANES, vectors)
        elif after.residual:
            addend = after.residual + 4 * (number * after.residual_batch - after.head_frames * y.channels) + offset
            _add(row, LANES, row, LANES, addend, addend, LANES, vectors)


@jit(signature(Assembly))
def _assemble(assembly: Any) -> None:
    """Write the parts of each signal, frame by frame."""
    a = Assembly(*assembly)
    copy, zero, activation = Activation(NONE, 0, 0), Activation(_ZERO, 0, 0), Activation(a.kind, a.alpha, a.inverse)
    start, row = a.tail_frames + a.left, 4 * a.channels
    for number in range(a.batch):
        tail, x, out = a.tail + 4 * number * a.tail_batch, a.x + 4 * number * a.x_batch, a.out + 4 * number * a.out_batch
        length = min(a.frames, int32_array(a.lengths, (a.batch,))[number]) if a.lengths else a.frames
        for t in range(a.out_frames):
            dst = out + t * row
            if start <= t < start + length:
                _activate_row(activation, x + (t - start) * row, dst, a.channels)
            elif t < a.tail_frames:
                _activate_row(copy, tail + t * row, dst, a.channels)
            else:
                _activate_row(zero, dst, dst, a.channels)


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
