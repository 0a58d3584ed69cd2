"""Between arrays and the device of a network. A GPU reads and writes pinned memory several times as fast as other memory, and
PyTorch keeps what was pinned for the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _place(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="cpu", pin_memory=device.type == "cuda")


def to_device(pieces: Sequence[NDArray[Any]], length: int, device: torch.device) -> Tensor:
    """Arrays of up to `length` columns, one below the other, with zeros after those that are shorter."""
    rows = sum(len(piece) for piece in pieces)
    place = _place((rows, length), torch.from_numpy(np.empty(0, pieces[0].dtype)).dtype, device)
    array, at = place.numpy(), 0
    for piece in pieces:
        own = array[at : at + len(piece)]
        own[:, : piece.shape[1]] = piece
        own[:, piece.shape[1] :] = 0
        at += len(piece)
    return place.to(device)


def to_host(x: Tensor) -> NDArray[Any]:
    """A tensor as an array; what of it is kept for long is copied."""
    if x.device.type == "cpu":
        return x.numpy()
    place = _place(x.shape, x.dtype, x.device)
    place.copy_(x)
    return place.numpy()


def codes_to_host(indices: Sequence[Tensor]) -> list[NDArray[np.int32]]:
    """Indices `(streams, frames / stride)` a codebook, all at once."""
    together = to_host(torch.cat([index.to(torch.int32) for index in indices], dim=1))
    ends = np.cumsum([index.shape[1] for index in indices])
    return np.split(together, ends[:-1], axis=1)
