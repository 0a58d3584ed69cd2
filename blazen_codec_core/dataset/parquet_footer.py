"""Parser of Parquet footers for column metadata. Arrow's own accessors abort the process on damaged or encrypted footers."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CorruptFile
from .thrift import Compact

TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4_HADOOP", "ZSTD", "LZ4_RAW")
DELTA = {5, 6, 7}
"""Delta encodings."""
LARGEST_FOOTER = 256 << 20
_TAIL = 8
DAMAGE = (IndexError, ValueError, TypeError, KeyError, AttributeError, RecursionError, UnicodeDecodeError)
"""Errors that parsing a damaged footer raises."""


@dataclass(frozen=True)
class Chunk:
    """A column chunk, with Arrow's field names. `is_delta` tells whether any page is delta-encoded."""

    path_in_schema: str
    physical_type: str
    compression: str
    is_delta: bool
    num_values: int
    total_compressed_size: int
    total_uncompressed_size: int
    data_page_offset: int
    dictionary_page_offset: int | None


@dataclass(frozen=True)
class Group:
    """A row group."""

    num_rows: int
    chunks: tuple[Chunk, ...]


def groups(path: Path) -> tuple[Group, ...]:
    """Return the row groups of a file.

    Raises:
        CorruptFile: The footer is damaged, or columns are encrypted.
    """
    try:
        status = os.stat(path)
        return _groups(path, status.st_size, status.st_mtime_ns)
    except DAMAGE as error:
        raise _damaged(str(path), error) from error


def groups_of(file: BinaryIO, size: int, where: str) -> tuple[Group, ...]:
    """Return the row groups of an open file of `size` bytes, called `where` in messages; see `groups`."""
    try:
        return _read(file, size, where)
    except DAMAGE as error:
        raise _damaged(where, error) from error


@functools.lru_cache(maxsize=4)
def _groups(path: Path, size: int, changed: int) -> tuple[Group, ...]:
    with path.open("rb") as file:
        return _read(file, size, str(path))


def _read(file: BinaryIO, size: int, where: str) -> tuple[Group, ...]:
    file.seek(max(0, size - _TAIL))
    length = int.from_bytes(file.read(4), "little")
    if length > min(LARGEST_FOOTER, size - _TAIL):
        raise ValueError(f"it has {length} bytes")
    file.seek(size - _TAIL - length)
    found = Compact(file.read(length), contents=True).struct()
    return tuple(Group(_count(group[3]), tuple(_chunk(chunk, where) for chunk in group[1])) for group in found.get(4) or ())


def _damaged(where: str, error: Exception) -> CorruptFile:
    return CorruptFile(f"{where} cannot be read as Parquet: its footer is damaged: {error}")


def _chunk(said: dict[int, Any], where: str) -> Chunk:
    if 8 in said or 9 in said or 3 not in said:
        raise CorruptFile(f"{where} has encrypted columns, which are not supported. Write it without encryption")
    facts = said[3]
    dictionary = facts.get(11)
    return Chunk(
        path_in_schema=b".".join(facts[3]).decode(),
        physical_type=TYPES[_count(facts[1])],
        compression=CODECS[_count(facts[4])],
        is_delta=not DELTA.isdisjoint(facts[2]),
        num_values=_count(facts[5]),
        total_compressed_size=_count(facts[7]),
        total_uncompressed_size=_count(facts[6]),
        data_page_offset=_count(facts[9]),
        dictionary_page_offset=None if dictionary is None else _count(dictionary),
    )


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
