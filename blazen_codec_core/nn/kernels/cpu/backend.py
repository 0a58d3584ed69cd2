"""The back end of compiled CPU kernels, for float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ..aten.random_normal import random_normal
from ..interface import (
    CodebookSearch,
    Conv1dKernel,
    Conv1dProblem,
    Elementwise,
    GroupNormKernel,
    KernelBackend,
    LSTMKernel,
)
from . import codebook_search, elementwise, group_norm, lstm
from .conv import select_conv1d
from .microkernel import is_available
from .packing import supports_direct_conv
from .random_normal import box_muller


class CpuBackend(KernelBackend):
    """Kernels compiled by numba."""

    @property
    def is_batch_exact(self) -> bool:
        """The micro-kernels are; on processors without them, convolutions are left to PyTorch."""
        return is_available()

    def supports(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def conv1d(self, problem: Conv1dProblem) -> Conv1dKernel | None:
        p = problem
        if not p.frozen or not (p.groups == 1 or p.is_depthwise):
            return None
        return select_conv1d(p.weight, p.bias, p.stride, p.dilation, p.groups, high_accuracy=p.high_accuracy)

    def lstm(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
        return lstm.PersistentLSTM(weight_ih, weight_hh, bias) if lstm.supports_lstm(weight_hh) else None

    def group_norm(self, weight: Tensor, bias: Tensor, epsilon: float) -> GroupNormKernel | None:
        return group_norm.GroupNorm(weight, bias, epsilon) if supports_direct_conv(weight) else None

    def codebook_search(self, table: Tensor, offset: Tensor | None) -> CodebookSearch | None:
        return codebook_search.CodebookSearch(table, offset) if supports_direct_conv(table) else None

    def elementwise(self, device: torch.device, dtype: torch.dtype) -> Elementwise | None:
        return elementwise if dtype == torch.float32 else None

    def random_normal(self, seed: int, layer: int, position: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return random_normal(seed, layer, position, count, device, dtype, box_muller)
