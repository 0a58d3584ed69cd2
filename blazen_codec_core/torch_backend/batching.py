"""Batches of signals by length: which run together, and their results in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..nn.pipeline import Scope, run_parallel

T = TypeVar("T")
R = TypeVar("R")


def run_batches(
    items: Sequence[T],
    batches: Iterable[Sequence[int]],
    run: Callable[[list[T]], Sequence[R]],
    threads: int = 1,
    scope: Scope = nullcontext,
    known: Mapping[int, R] | None = None,
) -> list[R]:
    """Run items batch by batch, and return the results in the order of the items.

    Args:
        batches: Indices of the items of each batch; together, every item once, except those that are known.
        run: Maps the items of a batch to their results.
        threads: Most batches that run side by side.
        scope: Context of the threads other than the calling one.
        known: Results of some items, by their indices.
    """

    def run_one(batch: Sequence[int]) -> list[tuple[int, R]]:
        return list(zip(batch, run([items[index] for index in batch]), strict=True))

    results = {**(known or {}), **dict(chain.from_iterable(run_parallel(run_one, batches, threads, scope)))}
    return [results[index] for index in range(len(items))]


def by_equal_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Batches of at most `size` items of equal length, shortest first."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, equal in groupby(order, lengths.__getitem__):
        yield from batched(equal, size)


def by_similar_length(lengths: Sequence[int], streams: Sequence[int], size: int, short: int) -> Iterator[list[int]]:
    """Batches of items of similar length, shortest first.

    Args:
        lengths: Length of each item.
        streams: Number of streams of each item.
        size: Most streams of a batch.
        short: More streams are together, as long as their lengths add up to at most this, padded to the longest.
    """
    batch: list[int] = []
    count = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        count += streams[index]
        if batch and count > size and count * lengths[index] > short:
            yield batch
            batch, count = [], streams[index]
        batch.append(index)
    if batch:
        yield batch


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive items, `size` at a time, each batch as soon as it is complete (`itertools.batched` of Python 3.12)."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def split_rows(rows: Any, counts: Sequence[int]) -> list[Any]:
    """Split a sequence or an array into consecutive parts of `counts` rows."""
    ends = np.cumsum(counts)
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]


def joined(parts: Sequence[NDArray[Any]], axis: int = -1) -> NDArray[Any]:
    """Concatenation of arrays; the array itself if there is only one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
