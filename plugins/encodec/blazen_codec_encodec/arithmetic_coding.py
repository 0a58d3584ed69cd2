"""Bit packing and arithmetic coding, compatible with the authors' files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

RANGE_BITS = 24
RANGE = 1 << RANGE_BITS
ROUNDING = 1e-8
"""Step to which probabilities are rounded down, so that small differences between machines matter less."""
LEAST = 2
"""Least share of `RANGE` of a code."""
BLOCK = 1 << 16


def pack(values: NDArray[np.integer], bits: int) -> bytes:
    """Pack values into `bits` bits each, least significant bit first, zero-padded to a whole byte."""
    parts = []
    for start in range(0, values.size, BLOCK):  # whole bytes each
        block = values[start : start + BLOCK].astype(np.uint32)
        parts.append(np.packbits((block[:, None] >> np.arange(bits)) & 1, bitorder="little").tobytes())
    return b"".join(parts)


def unpack(data: bytes, count: int, bits: int) -> NDArray[np.int32]:
    """Invert `pack`.

    Raises:
        ValueError: There are too few bytes, or the padding is not zero.
    """
    if len(data) != packed_size(count, bits):
        raise ValueError(f"{count} values of {bits} bits take {packed_size(count, bits)} bytes, but there are {len(data)}")
    if count * bits % 8 and data[-1] >> (count * bits % 8):
        raise ValueError("the padding of the last byte is not zero")
    values = np.empty(count, np.int32)
    for start in range(0, count, BLOCK):
        block = values[start : start + BLOCK]
        raw = np.frombuffer(data, np.uint8, packed_size(block.size, bits), start * bits // 8)
        single = np.unpackbits(raw, bitorder="little")[: block.size * bits].reshape(-1, bits)
        block[:] = single @ (1 << np.arange(bits))
    return values


def packed_size(count: int, bits: int) -> int:
    """Return the size of `count` values of `bits` bits in bytes."""
    return -(-count * bits // 8)


def shares(probabilities: Tensor) -> Tensor:
    """Convert probabilities `(entries, codebooks)` to the end of each entry's interval in `RANGE`, int64, same shape."""
    rounded = (probabilities / ROUNDING).floor() * ROUNDING
    spare = LEAST * probabilities.shape[0] / RANGE
    parts = (((1 - spare) * RANGE) * rounded).floor().long() + LEAST
    return parts.cumsum(0)


def fewest_bits(count: int, entries: int) -> float:
    """Return the least number of bits for `count` codes, for any probabilities."""
    return count * -math.log2(1 - LEAST * (entries - 1) / RANGE)


class _Interval:
    """Current interval of the coder, as `low` and `high` of `max_bit + 1` bits."""

    def __init__(self) -> None:
        self.low = self.high = 0
        self.max_bit = -1

    def part(self, start: int, end: int) -> tuple[int, int]:
        """Map `start … end` of `RANGE` to bounds within the current interval."""
        scale = (self.high - self.low + 1) / RANGE
        return self.low + math.ceil(start * scale), self.low + math.floor((end - 1) * scale)

    @property
    def narrow(self) -> bool:
        return self.high - self.low + 1 < RANGE

    def widen(self) -> None:
        self.low, self.high, self.max_bit = self.low * 2, self.high * 2 + 1, self.max_bit + 1

    def shift_out(self) -> int | None:
        """Shift out the highest bit, if it is determined."""
        if self.max_bit < 0 or (bit := self.low >> self.max_bit) != self.high >> self.max_bit:
            return None
        self.low -= bit << self.max_bit
        self.high -= bit << self.max_bit
        self.max_bit -= 1
        return bit


class ArithmeticEncoder:
    """Arithmetic encoder for one segment (Pasco 1976, Rissanen & Langdon 1981; with a range of 24 bits)."""

    def __init__(self) -> None:
        self._interval = _Interval()
        self._bits = bytearray()

    def push(self, start: int, end: int) -> None:
        """Encode a code, given its interval in `RANGE`."""
        interval = self._interval
        while interval.narrow:
            interval.widen()
        interval.low, interval.high = interval.part(start, end)
        while (bit := interval.shift_out()) is not None:
            self._bits.append(bit)

    def finish(self) -> bytes:
        """Return the segment in whole bytes."""
        low = self._interval.low
        self._bits += bytes(low >> bit & 1 for bit in range(self._interval.max_bit, -1, -1))
        return np.packbits(np.frombuffer(self._bits, np.uint8), bitorder="little").tobytes()


class ArithmeticDecoder:
    """Arithmetic decoder for data that starts at offset `start`."""

    def __init__(self, data: bytes, start: int) -> None:
        self._interval = _Interval()
        self._current = 0
        self._data, self._offset, self._used = data, start, 8
        self._byte = 0

    @property
    def end(self) -> int:
        """Offset of the next segment in the data, in bytes."""
        return self._offset

    def _bit(self) -> int:
        if self._used == 8:
            if self._offset == len(self._data):
                raise EOFError("it is truncated")
            self._byte, self._used, self._offset = self._data[self._offset], 0, self._offset + 1
        self._used += 1
        return self._byte >> (self._used - 1) & 1

    def pull(self, ends: Sequence[int]) -> int:
        """Decode a code, given the ends of the entries' intervals in `RANGE`.

        Raises:
            EOFError: The data is truncated.
            ValueError: No entry matches.
        """
        interval = self._interval
        while interval.narrow:
            interval.widen()
            self._current = self._current * 2 + self._bit()
        low, high = 0, len(ends) - 1
        while low <= high:
            code = (low + high) // 2
            first, last = interval.part(ends[code - 1] if code else 0, ends[code])
            if self._current < first:
                high = code - 1
            elif self._current > last:
                low = code + 1
            else:
                break
        else:
            raise ValueError("it has a code to which the model gives no interval")
        interval.low, interval.high = first, last
        while (bit := interval.shift_out()) is not None:
            self._current -= bit << (interval.max_bit + 1)
        return code
