"""The back end of compiled CPU kernels, for float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....errors import SlowerNotice
from ..aten.random_normal import random_normal
from ..backends import BROKEN
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
from . import attention, codebook_search
from .channel_norm import ChannelNorm
from .compile_cache import warn_of_troubles
from .conv import select_conv1d
from .elementwise import CpuElementwise
from .group_norm import GroupNorm
from .jit import CompileError
from .lstm import PersistentLSTM, supports_lstm
from .microkernel import is_available
from .packing import supports_direct_conv, supports_gemm
from .random_normal import load_box_muller

KernelT = TypeVar("KernelT")


class CpuBackend(KernelBackend):
    """Kernels compiled by numba: those that every network needs at once, the others when a layer that needs them is prepared."""

    def __init__(self) -> None:
        self._works = True
        self._elementwise, self._box_muller = CpuElementwise(), load_box_muller()
        warn_of_troubles()

    @property
    def is_batch_exact(self) -> bool:
        """The micro-kernels are; on processors without them, convolutions are left to PyTorch."""
        return self._works and is_available()

    def supports(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def _prepare(self, make: Callable[[], KernelT]) -> KernelT | None:
        """Make a kernel, for which a function may be compiled; `None`, with a warning, if that fails."""
        try:
            kernel = make()
        except CompileError as error:
            if self._works:
                warnings.warn(BROKEN.format(package="numba", reason=error), SlowerNotice, stacklevel=3)
            self._works = False
            return None
        warn_of_troubles()
        return kernel

    def conv1d(self, problem: Conv1dProblem) -> Conv1dKernel | None:
        p = problem
        if not p.frozen or not (p.groups == 1 or p.is_depthwise):
            return None
        return self._prepare(
            lambda: select_conv1d(p.weight, p.bias, p.stride, p.dilation, p.groups, high_accuracy=p.high_accuracy)
        )

    def lstm(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
        return self._prepare(lambda: PersistentLSTM(weight_ih, weight_hh, bias)) if supports_lstm(weight_hh) else None

    def group_norm(self, weight: Tensor, bias: Tensor, epsilon: float) -> GroupNormKernel | None:
        return self._prepare(lambda: GroupNorm(weight, bias, epsilon)) if supports_direct_conv(weight) else None

    def channel_norm(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> ChannelNormKernel | None:
        return self._prepare(lambda: ChannelNorm(weight, bias, epsilon)) if supports_gemm(weight) else None

    def attention(self, problem: AttentionProblem, device: torch.device, dtype: torch.dtype) -> AttentionKernel | None:
        return self._prepare(lambda: attention.RingAttention(problem)) if attention.supports(problem, dtype) else None

    def codebook_search(self, table: Tensor, offset: Tensor | None) -> CodebookSearch | None:
        return self._prepare(lambda: codebook_search.CodebookSearch(table, offset)) if supports_direct_conv(table) else None

    def elementwise(self, device: torch.device, dtype: torch.dtype) -> Elementwise | None:
        return self._elementwise if dtype == torch.float32 else None

    def random_normal(
        self, seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        return random_normal(seed, layer, positions, count, device, dtype, self._box_muller)
