"""Elementwise kernels in PyTorch's operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..epilogue import ELU, GAIN, GELU, SILU, SNAKE, Epilogue

MIN_FUSED_VALUES = 1 << 14
"""From this many values, several vectorized passes over memory cost less than one slow pass."""


def write_activation(activation: Epilogue, x: Tensor, out: Tensor) -> None:
    """Write the activation of `x` to `out`, of the same shape."""
    if activation.activation == SNAKE:
        assert activation.parameters is not None
        alpha, inverse = (values.to(x.dtype) for values in activation.parameters)
        wave = torch.mul(x, alpha, out=out).sin_()
        torch.addcmul(x, wave.mul_(wave), inverse, out=out)
    elif activation.activation == ELU:
        _write_elu(x, out)
    elif activation.activation == GELU:
        out.copy_(F.gelu(x))
    elif activation.activation == SILU:
        out.copy_(F.silu(x))
    elif activation.activation == GAIN:
        assert activation.parameters is not None
        torch.mul(x, activation.parameters[0].to(x.dtype), out=out)
    else:
        out.copy_(x)


def _write_elu(x: Tensor, out: Tensor) -> None:
    """`exp(x) - 1` where x is negative, else x. PyTorch's own uses an exponential that is slower and more exact than needed."""
    if x.device.type != "cpu" or x.numel() < MIN_FUSED_VALUES:
        out.copy_(F.elu(x))
    else:
        torch.maximum(x, torch.clamp(x, max=0, out=out).exp_().sub_(1), out=out)


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
    """Write `[tail | left zeros | activation(x) | zeros]` to `out`; see `layers.padding.assemble_input`."""
    start = tail.shape[1] + left
    end = start + x.shape[1]
    if x.shape[1]:
        write_activation(activation, x, out[:, start:end])
    out[:, : tail.shape[1]] = tail
    out[:, tail.shape[1] : start] = 0
    out[:, end:] = 0
    if lengths is not None:
        frame = torch.arange(out.shape[1], device=x.device)
        out.masked_fill_((frame >= start + lengths[:, None])[:, :, None], 0)
