"""The back end of GPU kernels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..interface import (
    AttentionKernel,
    AttentionProblem,
    ChannelNormKernel,
    CodebookSearch,
    Conv1dKernel,
    Conv1dProblem,
    Elementwise,
    GroupNormKernel,
    KernelBackend,
    LSTMKernel,
)
from . import attention, channel_norm, elementwise, gemm_conv, group_norm, lstm, philox
from .depthwise_conv import DepthwiseConv1d
from .launch import runs_on


class TritonBackend(KernelBackend):
    """Kernels compiled by Triton."""

    @property
    def is_batch_exact(self) -> bool:
        return True

    def supports(self, device: torch.device) -> bool:
        return runs_on(device)

    def conv1d(self, problem: Conv1dProblem) -> Conv1dKernel | None:
        p = problem
        if p.frozen and p.is_depthwise:
            return DepthwiseConv1d(p.weight[:, 0], p.bias, p.dilation, allow_tf32=p.allow_tf32)
        if p.frozen and p.has_block_taps:
            return gemm_conv.GemmConv1d(p.block_taps(), p.bias, p.stride, p.dilation, allow_tf32=p.allow_tf32)
        return None

    def lstm(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
        if not lstm.supports_lstm(weight_hh):
            return None
        return lstm.PersistentLSTM(weight_ih, weight_hh, bias, allow_tf32=allow_tf32)

    def group_norm(self, weight: Tensor, bias: Tensor, epsilon: float) -> GroupNormKernel:
        return group_norm.GroupNorm(weight, bias, epsilon)

    def channel_norm(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> ChannelNormKernel | None:
        return channel_norm.ChannelNorm(weight, bias, epsilon) if len(weight) <= channel_norm.LARGEST else None

    def attention(self, problem: AttentionProblem, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
        return attention.RingAttention(problem)

    def codebook_search(self, table: Tensor, offset: Tensor | None) -> CodebookSearch:
        return gemm_conv.CodebookSearch(table, offset)

    def elementwise(self, device: torch.device, dtype: torch.dtype) -> Elementwise:
        return elementwise

    def random_normal(
        self, seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        return philox.random_normal(seed, layer, positions, count, device, dtype)
