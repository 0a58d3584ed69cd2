"""The dispatcher: asks kernel back ends in order, and takes the first kernel that fits.

The order is: back ends that others registered, Triton's on GPUs, numba's on CPUs, PyTorch's own operations. The last has a
convolution, attention, a search, elementwise kernels and noise for everything; `lstm` and the norms may find nothing.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .aten.backend import AtenBackend
from .backends import load_cpu_backend, load_gpu_backend
from .exporting import is_exporting
from .interface import (
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

ATEN = AtenBackend()
_registered: list[KernelBackend] = []


def register(backend: KernelBackend) -> None:
    """Add a back end, which is asked before all others. Networks that are prepared already keep their kernels."""
    _registered.insert(0, backend)
    backends_for.cache_clear()
    elementwise.cache_clear()
    attention.cache_clear()


@functools.cache
def backends_for(device: torch.device) -> list[KernelBackend]:
    """Back ends for a device, in the order in which they are asked."""
    found = [backend for backend in _registered if backend.supports(device)]
    if gpu := load_gpu_backend(device):
        found.append(gpu)
    if device.type == "cpu" and (cpu := load_cpu_backend()):
        found.append(cpu)
    return [*found, ATEN]


def _in_order(device: torch.device, frozen: bool = True) -> list[KernelBackend]:
    """Back ends to ask for the kernel of weights: PyTorch's alone if these may change, or if their graph is exported."""
    return backends_for(device) if frozen and not is_exporting() else [ATEN]


def is_batch_exact(device: torch.device) -> bool:
    """Tell whether a signal of a batch gets the same values as by itself, to the bit; PyTorch's operations round by shape.

    The back ends before PyTorch's must all be exact, as any of them may have the kernel of a layer.
    """
    found = [backend for backend in backends_for(device) if backend is not ATEN]
    return bool(found) and all(backend.is_batch_exact for backend in found)


def conv1d(problem: Conv1dProblem) -> Conv1dKernel:
    """Choose the kernel of a convolution. Weights in training get PyTorch's operations, which `torch.compile` can trace."""
    for backend in _in_order(problem.weight.device, problem.frozen):
        if kernel := backend.conv1d(problem):
            return kernel
    raise AssertionError("the last back end has a kernel for every convolution")


def lstm(weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
    """Choose the kernel of one LSTM layer with frozen weights; `None` if PyTorch's own is to run."""
    for backend in _in_order(weight_ih.device):
        if kernel := backend.lstm(weight_ih, weight_hh, bias, allow_tf32=allow_tf32):
            return kernel
    return None


def group_norm(weight: Tensor, bias: Tensor, epsilon: float) -> GroupNormKernel | None:
    """Choose a group norm with frozen weights and an epilogue; `None` if `aten.group_norm.normalize` is to run."""
    for backend in _in_order(weight.device):
        if kernel := backend.group_norm(weight, bias, epsilon):
            return kernel
    return None


def channel_norm(weight: Tensor, bias: Tensor | None, epsilon: float) -> ChannelNormKernel | None:
    """Choose a norm over channels with frozen weights; `None` if PyTorch's own is to run. See `KernelBackend.channel_norm`."""
    for backend in _in_order(weight.device):
        if kernel := backend.channel_norm(weight, bias, epsilon):
            return kernel
    return None


@functools.cache
def attention(problem: AttentionProblem, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """Choose the kernel of causal attention, which has no weights, for signals of this dtype."""
    for backend in backends_for(device):
        if kernel := backend.attention(problem, device, dtype):
            return kernel
    raise AssertionError("the last back end has an attention for every problem")


def codebook_search(table: Tensor, offset: Tensor | None, *, frozen: bool) -> CodebookSearch:
    """Choose the kernel for the argmax over entries of `vector @ table + offset`.

    Args:
        table: `(channels, entries)`.
        offset: `(entries,)`.
        frozen: The entries will not change.
    """
    for backend in _in_order(table.device, frozen):
        if kernel := backend.codebook_search(table, offset):
            return kernel
    raise AssertionError("the last back end searches every codebook")


@functools.cache
def elementwise(device: torch.device, dtype: torch.dtype) -> Elementwise:
    """Choose elementwise kernels for signals `(batch, frames, channels)`."""
    for backend in backends_for(device):
        if kernels := backend.elementwise(device, dtype):
            return kernels
    raise AssertionError("the last back end has elementwise kernels for every signal")


def random_normal(
    seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Normal noise `(rows, count)` of the counter-based generator of `layers.noise.CounterNoise`, from each position on."""
    for backend in backends_for(device):
        noise = backend.random_normal(seed, layer, positions, count, device, dtype)
        if noise is not None:
            return noise
    raise AssertionError("the last back end makes noise for every device")
