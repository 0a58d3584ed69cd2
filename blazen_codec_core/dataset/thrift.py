"""Subset of Thrift's compact protocol for Parquet: structs become dictionaries by field id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DEEPEST = 8


class Compact:
    """Reader of structs; raises `IndexError` at the end of the data, and `ValueError` for invalid data.

    Args:
        data: Serialized bytes.
        contents: Keep lists and bytes; otherwise they become `None`.
    """

    def __init__(self, data: Sequence[int], *, contents: bool = False) -> None:
        self._data, self._contents, self.at = data, contents, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Parse a struct into a dictionary by field id."""
        if depth > DEEPEST:
            raise ValueError("structs are nested too deeply")
        found, number = dict[int, Any](), 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._zigzag()
            found[number] = self._value(kind & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind in (9, 10):
            size = self._byte()
            count, own = self._varint() if size >> 4 == 15 else size >> 4, size & 15
            values = (self._skip(1) if own in (1, 2) else self._value(own, depth + 1) for _ in range(count))
            if self._contents:
                return list(values)
            for _ in values:
                pass
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"there is no type {kind}")

    def _skip(self, count: int) -> bytes | None:
        begin, self.at = self.at, self.at + count
        if self.at > len(self._data):
            raise IndexError("the end")
        return bytes(self._data[begin : self.at]) if self._contents else None

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise ValueError("a number is too long")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
