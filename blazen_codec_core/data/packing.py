"""Packing: several sequences in rows of a fixed length."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from ..errors import InvalidInput


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Distribute sequences over rows by best fit, longest first (Johnson 1974, "Fast algorithms for bin packing").

    Args:
        lengths: Length of each sequence.
        room: Length of a row.

    Returns:
        The sequences of each row, as indices into `lengths`.

    Raises:
        InvalidInput: A sequence does not fit into a row.
    """
    rows = list[list[int]]()
    free = list[tuple[int, int]]()  # of each row, sorted: its free length, and its number
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[number]
        if length > room:
            raise InvalidInput(f"a sequence has {length} ids, and a row {room}; raise pack, or crop recordings with frames")
        place = bisect.bisect_left(free, (length, 0))
        if place == len(free):
            free.append((room, len(rows)))
            rows.append([])
        left, row = free.pop(place)
        rows[row].append(number)
        bisect.insort(free, (left - length, row))
    return rows
