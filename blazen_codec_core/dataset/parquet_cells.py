"""Sequential reading of recordings embedded in Parquet files, a few at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CorruptFile
from . import parquet_footer, parquet_pages, shards

BATCH_BYTES = 4 << 20
"""Approximate number of bytes decoded at a time."""
MOST_ROWS = 64
BATCHES = 4
"""Number of cached batches, for threads that read neighbouring cells."""


class Cell(NamedTuple):
    """Location of a recording in a Parquet file.

    Attributes:
        column: Path of the binary column, such as `audio.bytes`.
        group: Index of the row group.
        row: Index in the row group.
    """

    column: str
    group: int
    row: int


class ParquetCells:
    """Reader of cells, one Parquet file at a time. Sequential access is fast; going back restarts the row group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: tuple[Path, str, int] | None = None
        self._file: Any = None
        self._batches: Iterator[Any] = iter(())
        self._rows = 1
        self._next = 0
        self._kept: OrderedDict[int, list[bytes | None]] = OrderedDict()

    def read(self, path: Path, cell: Cell) -> bytes | None:
        """Return the bytes of a cell; `None` if it is null.

        Raises:
            CorruptFile: The file is damaged.
            EngineNotAvailable: pyarrow is not installed.
        """
        with self._lock, shards.damage(path):
            if self._at != (path, cell.column, cell.group):
                self._begin(path, cell)
            number = cell.row // self._rows
            if number not in self._kept:
                if number < self._next:
                    self._begin(path, cell)
                self._advance(number)
            rows = self._kept[number]
            if cell.row % self._rows >= len(rows):
                raise CorruptFile(f"{path} has no row {cell.row} in a row group. The file changed after it was listed")
            return rows[cell.row % self._rows]

    def _begin(self, path: Path, cell: Cell) -> None:
        if self._at is None or self._at[0] != path:
            self.close()
            self._file = parquet_pages.opened(path)
        if not 0 <= cell.group < self._file.num_row_groups:
            raise CorruptFile(f"{path} has no row group {cell.group}. The file changed after it was listed")
        most = rows_at_once(path, cell.group, cell.column)
        room = parquet_pages.ROOM // BATCHES
        self._rows = parquet_pages.rows_at_once(self._file, path, cell.group, [cell.column], most=most, room=room)
        self._batches = self._file.iter_batches(self._rows, row_groups=[cell.group], columns=[cell.column], use_threads=False)
        self._at, self._next = (path, cell.column, cell.group), 0
        self._kept.clear()

    def _advance(self, number: int) -> None:
        while self._next <= number:
            batch = next(self._batches, None)
            if batch is None:
                raise CorruptFile(f"a row group has no row {number * self._rows}. The file changed after it was listed")
            column = batch.column(0)
            self._kept[self._next] = [_bytes(scalar) for scalar in column] if self._next > number - BATCHES else []
            self._next += 1
            while len(self._kept) > BATCHES:
                self._kept.popitem(last=False)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._at = None, None


def rows_at_once(path: Path, group: int, column: str) -> int:
    """Return the number of rows of a column chunk that take about `BATCH_BYTES`."""
    return max(1, min(MOST_ROWS, BATCH_BYTES // max(1, bytes_a_row(path, group, column))))


def bytes_a_row(path: Path, group: int, column: str) -> int:
    """Return the average size in bytes of the cells of a column chunk."""
    facts = parquet_footer.groups(path)[group]
    found = (chunk.total_uncompressed_size for chunk in facts.chunks if chunk.path_in_schema == column)
    return next(found, 0) // max(1, facts.num_rows)


def _bytes(scalar: Any) -> bytes | None:
    value = scalar.as_py()
    while isinstance(value, dict):  # a struct with the one requested field
        (value,) = value.values()
    return value if isinstance(value, bytes) else None
