"""The back end of PyTorch's own operations: plain, correct everywhere, and the last to be asked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..exporting import is_exporting
from ..interface import (
    AttentionKernel,
    AttentionProblem,
    CodebookSearch,
    Conv1dKernel,
    Conv1dProblem,
    Elementwise,
    KernelBackend,
    LSTMKernel,
)
from . import elementwise
from .attention import AtenAttention
from .conv import AtenConv1d, ChannelsLastConv2d, GemmConv1d, Im2colConv1d, Kn2rowConv1d, RowByRow, add_bias
from .exported_lstm import ExportedLSTM
from .random_normal import random_normal

MIN_CONV2D_CHANNELS = 16
"""Below this many channels, one GEMM over all taps is faster than `conv2d`."""


class AtenBackend(KernelBackend):
    """Kernels in PyTorch's operations.

    On CPUs `conv1d` runs far below the GEMM rate. A convolution of one tap is a GEMM of the `(time, channels)` signal; one of
    several taps is a channels-last `conv2d`, one call with one parallel region. With few input channels it is im2col and a GEMM,
    with few output channels kn2row. Other groups and strides, and other devices, are left to `conv1d`.
    """

    def supports(self, device: torch.device) -> bool:
        return True

    def conv1d(self, problem: Conv1dProblem) -> Conv1dKernel:
        if is_exporting():  # other runtimes choose an algorithm themselves
            return _aten_conv1d(problem)
        kernel = self._conv1d(problem)
        return RowByRow(kernel) if problem.frozen and problem.weight.device.type == "cpu" else kernel

    @staticmethod
    def _conv1d(p: Conv1dProblem) -> Conv1dKernel:
        on_cpu = p.weight.device.type == "cpu"
        if on_cpu and p.is_depthwise:
            return ChannelsLastConv2d(p.weight[:, 0].unbind(), p.bias, p.dilation)
        if not on_cpu or not p.has_block_taps:
            return _aten_conv1d(p)
        taps = p.block_taps().unbind()
        if len(taps) == 1:
            return GemmConv1d(taps[0], p.bias)
        needs_gradients = torch.is_grad_enabled() and not p.frozen  # those of `conv2d` are several times as fast as a GEMM's
        is_half = p.weight.dtype.itemsize < torch.float32.itemsize  # taps must be accumulated in float32
        if not needs_gradients and not is_half and p.in_channels < MIN_CONV2D_CHANNELS:
            return Im2colConv1d(p.weight, p.bias, p.stride, p.dilation)
        if not needs_gradients and not is_half and p.out_channels < MIN_CONV2D_CHANNELS and p.stride == 1:
            return Kn2rowConv1d(p.weight, p.bias, p.dilation)
        return ChannelsLastConv2d(taps, p.bias, p.dilation)

    def lstm(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
        return ExportedLSTM(weight_ih, weight_hh, bias) if is_exporting() else None

    def attention(self, problem: AttentionProblem, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
        return AtenAttention(problem)

    def codebook_search(self, table: Tensor, offset: Tensor | None) -> CodebookSearch:
        return lambda codes: add_bias(torch.matmul(codes, table), offset).argmax(-1)

    def elementwise(self, device: torch.device, dtype: torch.dtype) -> Elementwise:
        return elementwise

    def random_normal(
        self, seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        return random_normal(seed, layer, positions, count, device, dtype)


def _aten_conv1d(p: Conv1dProblem) -> AtenConv1d:
    return AtenConv1d(p.weight, p.bias, p.stride, p.dilation, p.groups, p.allow_tf32)
