"""Queue of the samples or codes of a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def pad_columns(x: Any, count: int) -> Any:
    """An array or a tensor `(rows, columns)`, followed by zeros."""
    return F.pad(x, (0, count)) if isinstance(x, Tensor) else np.pad(x, ((0, 0), (0, count)))


class Columns:
    """Queue of arrays or of tensors `(rows, columns)`, from which any number of columns is taken.

    Args:
        empty: Array or tensor without columns.
    """

    def __init__(self, empty: Any) -> None:
        self._parts: list[Any] = []
        self._empty = empty
        self.count = 0

    def push(self, array: Any) -> None:
        if array.shape[1]:
            self._parts.append(array)
            self.count += array.shape[1]

    def take(self, count: int) -> Any:
        """Take the first `count` columns, which must be there."""
        if not count:
            return self._empty
        taken: list[Any] = []
        self.count -= count
        while count:
            part = self._parts[0]
            if part.shape[1] > count:
                taken.append(part[:, :count])
                self._parts[0], count = part[:, count:], 0
            else:
                taken.append(self._parts.pop(0))
                count -= part.shape[1]
        if len(taken) == 1:
            return taken[0]
        return torch.cat(taken, 1) if isinstance(taken[0], Tensor) else np.concatenate(taken, 1)
