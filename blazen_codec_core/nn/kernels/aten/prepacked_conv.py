"""Convolution as a GEMM with weights that oneDNN has prepacked.

A plain GEMM reorders both factors at every call. With a large weight and a short signal, that takes as long as multiplying. With
a long signal of few channels, adding the bias afterwards does. The operators are those that PyTorch's compiler calls.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class PrepackedConv1d:
    """Convolution of float32 signals on a CPU as one GEMM over im2col windows; see `aten.conv.Conv1dKernel`.

    Args:
        taps: `(stride * in, out)` each, copied; see `aten.conv.GemmPerTapConv1d`.
        dilation: In blocks of `stride` frames.
    """

    def __init__(self, taps: Sequence[Tensor], bias: Tensor | None, dilation: int = 1) -> None:
        self._starts, self._channels = range(0, len(taps) * dilation, dilation), taps[0].shape[0]
        self._bias = None if bias is None else bias.detach()
        pack, self._gemm = _operators()
        self._weight: Tensor = pack(torch.cat([tap.detach() for tap in taps]).t().contiguous())

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        batch, stride = x.shape[0], self._channels // x.shape[2]
        blocks = x[:, : (frames + self._starts[-1]) * stride].reshape(batch, -1, self._channels)
        windows = torch.cat([blocks[:, start : start + frames] for start in self._starts], 2) if len(self._starts) > 1 else blocks
        y: Tensor = self._gemm(windows, self._weight, self._bias, "none", [], "")
        return y


def _operators() -> tuple[Any, Any]:
    """Operators that pack a weight and multiply by it; neither is part of PyTorch's public interface."""
    return torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise


@functools.cache
def is_available() -> bool:
    """Tell whether this PyTorch has the operators, and they compute a convolution."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ones = functools.partial(torch.ones, dtype=torch.float32)
    with torch.no_grad():
        try:
            y = PrepackedConv1d(ones(2, 16, 8).unbind(), ones(8))(ones(1, 4, 16), 3)
        except (AttributeError, RuntimeError, TypeError):  # another release may lack them, or take other arguments
            return False
        return y.shape == (1, 3, 8) and bool((y == 33).all())
