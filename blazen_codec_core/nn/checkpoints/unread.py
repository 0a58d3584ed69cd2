"""Tensors of a checkpoint whose values are not needed, and so not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Supported types of weights."""
Select = Callable[[Sequence[str]], Collection[str]]
"""From the names of a state dict to those whose values are not needed."""


class Unread(Tensor):
    """A tensor with a shape and a dtype only; operations give such tensors too, and reading a value fails."""


def unread(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make a tensor whose values are not read."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta").as_subclass(Unread)


def may_stay_unread(shape: Sequence[int], dtype: torch.dtype | None) -> bool:
    """Tell whether a tensor that is not needed may stay unread. Vectors are read: they are small, and may hold settings."""
    return len(shape) > 1 and dtype in FLOATS
