"""A row of a list as it was read, and the place of the recording that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..parquet_cells import Cell

FIRST = "column_1"
"""The column of paths of a list without names of columns."""
ALL = "all"
"""All columns that no place is read from travel along."""
MOST_NAMES = 50
"""Names of columns that a message has."""


@dataclass(frozen=True)
class Record:
    """A row of a list.

    Attributes:
        number: Of the row, from 1.
        values: Its columns, or the fields of a JSON object.
        problem: Why there are none.
        cell: The recording itself, in a Parquet file.
        size: About how long that is, in bytes.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    cell: Cell | None = None
    size: int = 0


@dataclass(frozen=True)
class Place:
    """Location of a recording, and the part of it that is meant.

    Attributes:
        paths: Where the file may be, the likeliest first.
        id: As the list says; `None` if it does not.
        start: Of the part, in seconds; `None` where it is the whole.
        end: Of the part, in seconds.
        lasts: Seconds of the whole, as the list says.
        used: The columns that this was read from.
    """

    paths: tuple[str, ...]
    id: str | None = None
    start: float | None = None
    end: float | None = None
    lasts: float | None = None
    used: frozenset[str] = frozenset()
