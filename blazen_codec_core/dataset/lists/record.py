"""A row of a list, and the location of its recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..parquet_cells import Cell

FIRST = "column_1"
"""Path column of a list without a header."""
ALL = "all"
"""Carry all columns that do not locate the recording."""
MOST_NAMES = 50
"""Most column names in a message."""


@dataclass(frozen=True)
class Record:
    """A row of a list.

    Attributes:
        number: Row number, from 1.
        values: Values by column, or the fields of a JSON object.
        problem: Error of a row that could not be read; empty otherwise.
        cell: Location of embedded audio in a Parquet file.
        size: Approximate size of embedded audio in bytes.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    cell: Cell | None = None
    size: int = 0


@dataclass(frozen=True)
class Place:
    """Location of a recording or of a part of it.

    Attributes:
        paths: Candidate paths, the likeliest first.
        id: Id in the list; `None` if it has none.
        start: Start of the part in seconds; `None` for the beginning.
        end: End of the part in seconds; `None` for the end.
        lasts: Duration in seconds according to the list.
        used: Columns that were used.
    """

    paths: tuple[str, ...]
    id: str | None = None
    start: float | None = None
    end: float | None = None
    lasts: float | None = None
    used: frozenset[str] = frozenset()
