"""Transfers between arrays and the device of a network.

A GPU reads and writes pinned memory several times as fast as pageable memory, and PyTorch caches pinned allocations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _staging_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialized tensor on the CPU for transfers to or from `device`, pinned if that is a GPU."""
    return torch.empty(tuple(shape), dtype=dtype, device="cpu", pin_memory=device.type == "cuda")


def to_device(arrays: Sequence[NDArray[Any]], length: int, device: torch.device) -> Tensor:
    """Stack arrays `(rows, columns)` row-wise, zero-padded to `length` columns, and copy them to the device.

    Args:
        arrays: Arrays of one dtype, with at most `length` columns.
    """
    if device.type == "cpu" and all(array.shape[1] == length for array in arrays):
        return torch.from_numpy(np.concatenate(arrays))
    total_rows = sum(len(array) for array in arrays)
    buffer = _staging_buffer((total_rows, length), torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype, device)
    stacked, start = buffer.numpy(), 0
    for array in arrays:
        rows = stacked[start : start + len(array)]
        rows[:, : array.shape[1]] = array
        rows[:, array.shape[1] :] = 0
        start += len(array)
    return buffer.to(device)


def to_host(x: Tensor) -> NDArray[Any]:
    """Convert a tensor to an array. It may occupy memory of PyTorch's, so copy values that are kept for long."""
    if x.device.type == "cpu":
        return x.numpy()
    buffer = _staging_buffer(x.shape, x.dtype, x.device)
    buffer.copy_(x)
    return buffer.numpy()


def to_pcm_tensor(y: Tensor) -> Tensor:
    """Convert a network's output `(streams, samples, channels)` to audio `(streams * channels, samples)` on its device."""
    return y.transpose(1, 2).flatten(0, 1).float()


def to_pcm(y: Tensor) -> NDArray[np.float32]:
    """`to_pcm_tensor` on the host; see `to_host`."""
    return to_host(to_pcm_tensor(y))


def codes_to_host(indices: Sequence[Tensor]) -> list[NDArray[np.int32]]:
    """Convert the indices of each codebook, `(streams, frames / stride)`, to int32 arrays in a single transfer."""
    joint = to_host(torch.cat([index.to(torch.int32) for index in indices], dim=1))
    codes, end = [], 0
    for index in indices:
        start, end = end, end + index.shape[1]
        codes.append(joint[:, start:end])
    return codes
