"""Decoded size of DELTA_BYTE_ARRAY pages, in which values share prefixes with earlier values.

Such a page starts with the prefix lengths as DELTA_BINARY_PACKED numbers. They are summed without decoding the values, so that an
oversized page is detected beforehand.
"""

from __future__ import annotations

import numpy as np

WIDEST = 32
"""Largest bit width of a number."""
LONGEST_BLOCK = 1 << 16
"""Most numbers in a miniblock; writers use 32."""


def total(data: bytes, levels: int, most: int) -> int:
    """Return the sum of the prefix lengths of a page.

    Args:
        data: Decompressed page.
        levels: Number of level blocks before the values; each starts with its length.
        most: Largest number of values.

    Raises:
        ValueError: The encoding is invalid.
        IndexError: The data is truncated.
    """
    at = 0
    for _ in range(levels):
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    size, at = _number(data, at)
    blocks, at = _number(data, at)
    count, at = _number(data, at)
    first, at = _number(data, at)
    last, found, left = _signed(first), _signed(first), count - 1
    each = size // blocks if blocks else 0
    if count > most or last < 0 or not 0 < each <= LONGEST_BLOCK or each % 8:
        raise ValueError("the lengths in a page are damaged")
    while left > 0:
        step, at = _number(data, at)
        widths, at = data[at : at + blocks], at + blocks
        if len(widths) < blocks:
            raise IndexError("the end")
        for width in widths:
            if left <= 0:
                break
            own, last, lowest = _sum(data[at : at + each * width // 8], width, min(each, left), each, last, _signed(step))
            if lowest < 0:
                raise ValueError("the lengths in a page are damaged")
            found, left, at = found + own, left - each, at + each * width // 8
    return found


def _sum(packed: bytes, width: int, count: int, each: int, last: int, step: int) -> tuple[int, int, int]:
    """Return the sum, last and lowest of delta-encoded numbers in a miniblock."""
    if not width:
        end = last + count * step
        return count * last + step * count * (count + 1) // 2, end, min(last + step, end)
    if width > WIDEST or len(packed) < each * width // 8:
        raise ValueError("the lengths in a page are damaged")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").reshape(each, width)[:count]
    numbers = last + np.cumsum(bits @ (np.int64(1) << np.arange(width, dtype=np.int64)) + step)
    return int(numbers.sum()), int(numbers[-1]), int(numbers.min())


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Parse an unsigned LEB128 number; return it and the position after it."""
    number = shift = 0
    while shift <= 63:
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
    raise ValueError("a number is too long")


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
