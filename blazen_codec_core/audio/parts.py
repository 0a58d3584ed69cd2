"""Virtual files composed of parts of other files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Span:
    """Byte range `start` to `stop` of a file."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


class Spliced(io.RawIOBase):
    """A readable, seekable concatenation of bytes and of spans of another file.

    Args:
        base: The other file. It is not closed, and its position may change between reads.
        parts: Parts in order.
    """

    def __init__(self, base: BinaryIO, *parts: bytes | Span) -> None:
        self._base, self._parts = base, parts
        self._ends = list(accumulate(len(part) for part in parts))
        self._at = 0

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return self._ends[-1] if self._ends else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + to)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if self._at < end:
                data = self._read(part, self._at - begin, min(len(buffer), end - self._at))
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
            begin = end
        return 0

    def _read(self, part: bytes | Span, at: int, count: int) -> bytes:
        if isinstance(part, bytes):
            return part[at : at + count]
        self._base.seek(part.start + at)
        return self._base.read(count)


def splice(base: BinaryIO, *parts: bytes | Span) -> BinaryIO:
    """Return a buffered `Spliced`, whose reads are complete up to the end of the file."""
    return io.BufferedReader(Spliced(base, *parts), 1 << 16)


def size_of(file: BinaryIO) -> int:
    """Return the size of a seekable file in bytes."""
    return file.seek(0, io.SEEK_END)


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Read at most `count` bytes from a position in a file."""
    file.seek(at)
    return file.read(count)


def find(file: BinaryIO, wanted: bytes, start: int, stop: int, block: int = 1 << 20) -> Iterator[int]:
    """Yield the offsets of a byte string in a range of a file, in order."""
    while start < stop:
        data = read_at(file, start, min(block, stop - start) + len(wanted) - 1)
        at = data.find(wanted)
        while at >= 0:
            if start + at + len(wanted) <= stop:
                yield start + at
            at = data.find(wanted, at + 1)
        start += block
