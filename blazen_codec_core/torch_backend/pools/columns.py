"""Queue of the samples or codes of a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns:
    """Queue of arrays `(rows, columns)`, from which any number of columns is taken."""

    def __init__(self, rows: int, dtype: type[np.generic]) -> None:
        self._parts: list[NDArray[Any]] = []
        self._empty = np.zeros((rows, 0), dtype)
        self.count = 0

    def push(self, array: NDArray[Any]) -> None:
        if array.shape[1]:
            self._parts.append(array)
            self.count += array.shape[1]

    def take(self, count: int) -> NDArray[Any]:
        """Take the first `count` columns, which must be there."""
        if not count:
            return self._empty
        taken: list[NDArray[Any]] = []
        self.count -= count
        while count:
            part = self._parts[0]
            if part.shape[1] > count:
                taken.append(part[:, :count])
                self._parts[0], count = part[:, count:], 0
            else:
                taken.append(self._parts.pop(0))
                count -= part.shape[1]
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)
