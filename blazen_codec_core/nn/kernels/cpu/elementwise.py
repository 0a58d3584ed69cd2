"""Elementwise kernels in one pass, where a chain of PyTorch's operations makes four.

They process a whole signal, or the output of another kernel while it is still in L1 (see `epilogue`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ..epilogue import ELU, IDENTITY, NONE, SNAKE, Epilogue
from . import vecmath
from .jit import jit_parallel, num_threads_for, require_float32_rows
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
_copy_vectors, _copy_values = (_vectorized(lambda x, a, b: x, lanes) for lanes in (LANES, 1))
_zero_vectors, _zero_values = (_vectorized(lambda x, a, b: x.splat_like(0.0), lanes) for lanes in (LANES, 1))
_add = _vectorized(lambda x, a, b: x + a)
_scale = _vectorized(lambda x, a, b: x * a, broadcast=True)

EPILOGUE_TYPE = "UniTuple(i8, 9)"
"""Type of an epilogue in the signature of a kernel; see `epilogue_args`."""
_ZERO = -1
"""Activation that writes zeros, beside those of `epilogue`."""
_IDENTITY_ARGS = (NONE, *[0] * 8)
_NO_LENGTHS = np.empty(0, np.int32)


@njit
def _activate_row(activation, x, alpha, inverse, out, channels):  # type: ignore[no-untyped-def]
    """Apply an activation to the values of one frame, given as addresses."""
    vectors, tail = channels // LANES, channels // LANES * LANES
    if vectors:
        if activation == SNAKE:
            _snake_vectors(x, LANES, out, LANES, alpha, inverse, LANES, vectors)
        elif activation == ELU:
            _elu_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        elif activation == _ZERO:
            _zero_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
        else:
            _copy_vectors(x, LANES, out, LANES, x, x, LANES, vectors)
    if channels > tail:
        x, out, alpha, inverse = x + 4 * tail, out + 4 * tail, alpha + 4 * tail, inverse + 4 * tail
        if activation == SNAKE:
            _snake_values(x, 1, out, 1, alpha, inverse, 1, channels - tail)
        elif activation == ELU:
            _elu_values(x, 1, out, 1, x, x, 1, channels - tail)
        elif activation == _ZERO:
            _zero_values(x, 1, out, 1, x, x, 1, channels - tail)
        else:
            _copy_values(x, 1, out, 1, x, x, 1, channels - tail)


@njit
def apply_epilogue(epilogue, signal, out, channels, first, end, left, right):  # type: ignore[no-untyped-def]
    """Apply an epilogue to frames `first` to `end` and channels `left` to `right` of one output of the batch.

    The channels are full vectors. `signal` is the output's number in the batch, and `out` its address.
    """
    activation, alpha, inverse, scale, head, head_frames, head_batch, residual, residual_batch = epilogue
    if activation == NONE and not (scale or head_frames or residual):
        return
    vectors = (right - left) // LANES
    for t in range(first, end):
        offset = 4 * (t * channels + left)
        row = out + offset
        if scale:
            _scale(row, LANES, row, LANES, scale + 4 * t, scale + 4 * t, 0, vectors)
        if activation != NONE:
            _activate_row(activation, row, alpha + 4 * left, inverse + 4 * left, row, right - left)
        if t < head_frames:
            addend = head + 4 * signal * head_batch + offset
            _add(row, LANES, row, LANES, addend, addend, LANES, vectors)
        elif residual:
            addend = residual + 4 * (signal * residual_batch - head_frames * channels) + offset
            _add(row, LANES, row, LANES, addend, addend, LANES, vectors)


def _parameter_addresses(epilogue: Epilogue) -> tuple[int, ...]:
    return tuple(require_float32_rows(values).data_ptr() for values in epilogue.parameters) if epilogue.parameters else (0, 0)


def epilogue_args(epilogue: Epilogue) -> tuple[tuple[int, ...], list[Tensor]]:
    """First argument of `apply_epilogue`, and the tensors that its addresses point to, which must stay alive until it has run."""
    if epilogue is IDENTITY:
        return _IDENTITY_ARGS, []
    pair = (epilogue.residual_head, epilogue.residual)
    signals = [None if x is None or not x.shape[1] else require_float32_rows(x) for x in pair]
    (head, head_batch), (residual, residual_batch) = ((0, 0) if x is None else (x.data_ptr(), x.stride(0)) for x in signals)
    head_frames = 0 if epilogue.residual_head is None else epilogue.residual_head.shape[1]
    scale = 0 if epilogue.scale is None else require_float32_rows(epilogue.scale).data_ptr()
    parameters = _parameter_addresses(epilogue)
    addresses = (epilogue.activation, *parameters, scale, head, head_frames, head_batch, residual, residual_batch)
    return addresses, [x for x in signals if x is not None]


@jit_parallel("void(i8, i8, i8, i8, i8, i8, i8, i8, i4[::1], i8, i8, i8, i8, i8, i8, i8, i8)")
def _assemble(
    batch: int, tail: int, tail_batch: int, tail_frames: int, x: int, x_batch: int, left: int, frames: int, lengths: Any,
    activation: int, alpha: int, inverse: int, out: int, out_batch: int, total: Any, channels: int, parts: int,
) -> None:  # fmt: skip
    """Write `[tail | left zeros | activation(x) | zeros]` of each signal, `total` frames in all.

    Of the next frames `x`, the first `frames` are read, or as many as `lengths` says for each signal.
    """
    start, share, row = tail_frames + left, -(-total // parts), 4 * channels
    for signal in range(batch):
        src_tail, src, dst = tail + 4 * signal * tail_batch, x + 4 * signal * x_batch, out + 4 * signal * out_batch
        length = min(frames, lengths[signal]) if lengths.size else frames
        for part in prange(parts):
            number = np.int64(part)
            for t in range(number * share, min(total, (number + 1) * share)):
                if start <= t < start + length:
                    _activate_row(activation, src + (t - start) * row, alpha, inverse, dst + t * row, channels)
                elif t < tail_frames:
                    _activate_row(NONE, src_tail + t * row, alpha, inverse, dst + t * row, channels)
                else:
                    _activate_row(_ZERO, dst + t * row, alpha, inverse, dst + t * row, channels)


def write_activation(activation: Epilogue, x: Tensor, out: Tensor) -> None:
    """Write the activation of a signal to another one of its shape."""
    assemble_input(x[:, :0], x, 0, activation, out)


def assemble_input(
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
    tail, x = require_float32_rows(tail), require_float32_rows(x)
    counts = _NO_LENGTHS if lengths is None else lengths.to(torch.int32).numpy()
    sources = (tail.data_ptr(), tail.stride(0), tail.shape[1], x.data_ptr(), x.stride(0), left, x.shape[1])
    output = (out.data_ptr(), out.stride(0), out.shape[1], out.shape[2])
    parameters, parts = _parameter_addresses(activation), num_threads_for(x.numel())
    _assemble(x.shape[0], *sources, counts, activation.activation, *parameters, *output, parts)
