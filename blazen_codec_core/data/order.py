"""Order of rows in an epoch, as arithmetic: the same for any process that has the seed, and resumable from a few numbers.

Row groups are shuffled, and their rows numbered in that order. A consumer, one worker of one rank, has a contiguous range of the
numbers. It reads the range in fills of bounded size, and shuffles the rows of each fill. A fill thus depends on its place alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS, ROWS, CROPS, BINS = range(4)
"""Purposes of random numbers; each has numbers of its own."""


@dataclass(frozen=True)
class Part:
    """Rows `first` to `last` of a row group."""

    group: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Consumer:
    """One of `count` consumers that share the rows."""

    number: int = 0
    count: int = 1

    def range(self, rows: int, even: bool) -> tuple[int, int]:
        """Return the consumer's range of `rows` numbers; `even` ranges have one length, and leave the last rows out."""
        if even:
            length = rows // self.count
            return self.number * length, (self.number + 1) * length
        return self.number * rows // self.count, (self.number + 1) * rows // self.count


def random(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """Return a generator that is determined by the seed, the purpose and the numbers."""
    return np.random.default_rng([seed, purpose, *numbers])


def fills(
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    order: NDArray[np.int64],
    span: tuple[int, int],
    most_rows: int,
    most_bytes: int,
) -> Iterator[list[Part]]:
    """Split a range of rows into fills, each of at most `most_rows` rows and `most_bytes` bytes, or of one row group.

    Args:
        rows: Number of rows of each row group.
        sizes: Size of each row group in bytes.
        order: Row groups in order.
        span: Range of rows in that order.
    """
    ends = np.cumsum(rows[order])
    fill, count, size = list[Part](), 0, 0
    for place in range(int(np.searchsorted(ends, span[0], side="right")), len(order)):
        group, end = int(order[place]), int(ends[place])
        begin = end - int(rows[group])
        if begin >= span[1]:
            break
        part = Part(group, max(span[0] - begin, 0), min(span[1], end) - begin)
        if fill and (count + part.rows > most_rows or size + int(sizes[group]) > most_bytes):
            yield fill
            fill, count, size = [], 0, 0
        fill.append(part)
        count, size = count + part.rows, size + int(sizes[group])
    if fill:
        yield fill
