"""Elementwise kernels, which write where the next layer reads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..epilogue import Epilogue
from ..memory_format import frame_contiguous
from .launch import launch
from .vecmath import NONE, activate, to_tf32

BLOCK = 4096
"""Values of a program."""


@triton.jit
def _assemble(  # type: ignore[no-untyped-def]
    tail, x, alpha, inverse, lengths, out,
    channels, start, first, end, total, tail_batch, x_batch, out_batch,
    ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, ROUND_TF32: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write `[tail | zeros | activation(x) | zeros]`; `start`, `first` and `end` are the boundaries in values."""
    signal = tl.program_id(1).to(tl.int64)
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if LENGTHS:
        end = tl.minimum(end, first + tl.load(lengths + signal) * channels)
    new = (offset >= first) & (offset < end)
    value = tl.load(x + signal * x_batch + (offset - first), mask=new, other=0.0).to(tl.float32)
    if ACTIVATION != NONE:
        channel = offset % channels
        alpha_c, inverse_c = tl.load(alpha + channel), tl.load(inverse + channel)
        value = activate(value, alpha_c, inverse_c, ACTIVATION)
    if ROUND_TF32:
        value = to_tf32(value)
    value += tl.load(tail + signal * tail_batch + offset, mask=offset < start, other=0.0).to(tl.float32)
    tl.store(out + signal * out_batch + offset, value.to(out.dtype.element_ty), mask=offset < total)


def write_activation(activation: Epilogue, x: Tensor, out: Tensor) -> None:
    """Write the activation of a signal to another one of its shape, with contiguous frames."""
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
    first = tail.shape[1] + left
    x, tail = frame_contiguous(x), frame_contiguous(tail)
    channels, total = x.shape[2], out.shape[1] * out.shape[2]
    if not total or not x.shape[0]:
        return
    alpha, inverse = activation.parameters or (out, out)
    start, first, end = (frames * channels for frames in (tail.shape[1], first, first + x.shape[1]))
    launch(
        _assemble, (triton.cdiv(total, BLOCK), x.shape[0]), tail, x, alpha, inverse, lengths, out,
        channels, start, first, end, total, tail.stride(0), x.stride(0), out.stride(0),
        ACTIVATION=activation.activation, LENGTHS=lengths is not None,
        ROUND_TF32=allow_tf32 and x.dtype == torch.float32, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
