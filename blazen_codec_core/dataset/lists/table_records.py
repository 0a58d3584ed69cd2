"""Rows of delimited text: CSV, TSV and similar, with and without a header."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from ...audio import SUFFIXES
from ...errors import InvalidInput, reason
from .columns import IDS, PATHS, Kind, meaning, normal
from .json_records import json_records
from .record import Record
from .text import lines, opened

SEPARATORS = (",", "\t", ";", "|")
UNQUOTED = frozenset("\t|")
"""Separators of formats without quoting."""
COUNTED = re.compile(r"[^\t]+\t\d+\s*")


def table_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a table.

    The first line is the header. A table without a header has the columns `column_1` (paths), `column_2` and so on. A fairseq
    manifest has a folder in the first line, then relative paths with their lengths.
    """
    with opened(path) as text:
        every = lines(text, path)
        first = next((line for line in every if line.strip()), "")
        second = next((line for line in every if line.strip()), "")
        following = [second] if second else []
        if "\t" not in first and COUNTED.fullmatch(second):
            yield from _fairseq(first.strip(), chain(following, every))
            return
        for separator in SEPARATORS:
            header = next(_fields(iter([first]), separator), [])
            names = [name.strip() for name in header] if isinstance(header, list) else []
            if any(normal(name) in PATHS for name in names):
                is_padded = f"{separator} " in first or f" {separator}" in first
                yield from _rows(names, chain(following, every), separator, is_padded)
                return
        yield from _nameless(chain([first], following, every), path)


def line_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a list with one path per line, optionally followed by `|` or a tab and text, or of JSON lines."""
    with opened(path) as text:
        first = next((line for line in lines(text, path) if line.strip()), "")
    if first.lstrip().startswith("{"):  # wenet's data.list
        yield from json_records(path)
        return
    with opened(path) as text:
        for number, line in enumerate(lines(text, path), 1):
            if not line.strip() or (line.startswith("#") and path.suffix.lower().startswith(".m3u")):
                continue
            separator = next((mark for mark in UNQUOTED if mark in line and not line.rstrip().endswith("|")), None)
            yield Record(number, _numbered(line.split(separator) if separator else [line]))


def _numbered(fields: list[str]) -> dict[str, str]:
    return {f"column_{number}": field.strip() if number == 1 else field for number, field in enumerate(fields, 1)}


def _nameless(every: Iterator[str], path: Path) -> Iterator[Record]:
    """Yield rows without a header; the first line determines the separator."""
    start = list(islice(every, 1))
    separator = next((mark for mark in ("|", "\t", ";", ",") if start and mark in start[0]), ",")
    fields = _fields(chain(start, every), separator)
    for number, row in enumerate(fields, 1):
        if isinstance(row, str):
            yield Record(number, problem=row)
        elif any(field.strip() for field in row):
            yield Record(number, _numbered(row))


def _rows(names: list[str], every: Iterator[str], separator: str, is_padded: bool) -> Iterator[Record]:
    """Yield rows with a header; blanks are part of carried values, unless the header is padded too."""
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise InvalidInput(f"the columns {', '.join(sorted(repeated))} occur twice")
    path = next(number for number, name in enumerate(names) if normal(name) in PATHS)
    stripped = {name for name in names if is_padded or normal(name) in (*PATHS, *IDS) or meaning(name).kind is not Kind.OTHER}
    for number, row in enumerate(_fields(every, separator, len(names), path), 1):
        if isinstance(row, str):
            yield Record(number, problem=row)
        elif any(field.strip() for field in row):
            if any(field.strip() for field in row[len(names) :]):
                yield Record(number, problem=f"the row has {len(row)} fields; expected {len(names)}")
            else:
                pairs = zip_longest(names, row[: len(names)], fillvalue="")
                yield Record(number, {name: field.strip() if name in stripped else field for name, field in pairs})


class _Lines:
    """Line iterator for `csv` that can go back within the current row."""

    def __init__(self, every: Iterator[str]) -> None:
        self._every, self._waiting = every, deque[str]()
        self.taken: list[str] = []
        self.is_at_end = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._every, None)
        if line is None:
            self.is_at_end = True
            raise StopIteration
        self.taken.append(line)
        return f"{line}\n"

    def go_back(self, kept: int) -> None:
        """Continue after the first `kept` lines of the row."""
        self._waiting.extendleft(reversed(self.taken[kept:]))

    def row(self, reader: Iterator[list[str]]) -> list[str] | None:
        """Return the fields of the next row, `None` if there is none."""
        self.taken, self.is_at_end = [], False
        return next(reader, None)


def _fields(every: Iterator[str], separator: str, columns: int | None = None, path: int = 0) -> Iterator[list[str] | str]:
    """Yield the fields of each row, or its error.

    Args:
        columns: Number of columns, if known.
        path: Index of the path column.
    """
    if separator in UNQUOTED:
        for line in every:
            yield [_unquoted(field) for field in line.split(separator)]
        return
    rows = _Lines(every)
    as_it_is, skipping = (csv.reader(rows, delimiter=separator, skipinitialspace=skips) for skips in (False, True))
    while True:
        try:
            row = rows.row(as_it_is)
            if row is not None and any(field[:1] == " " and field.lstrip()[:1] == '"' for field in row):
                rows.go_back(0)
                row = rows.row(skipping)
        except csv.Error as error:
            rows.go_back(1)
            yield f"{reason(error)}; is a quotation mark not closed?" if len(rows.taken) > 1 else reason(error)
            continue
        if row is None:
            return
        if _is_unclosed(row, rows, separator, columns, path):
            rows.go_back(1)
            yield f"a quotation mark is not closed: {rows.taken[0][:80]!r}"
        else:
            yield row


def _is_unclosed(row: list[str], rows: _Lines, separator: str, columns: int | None, path: int) -> bool:
    """Tell whether an unclosed quotation mark merged several rows into one."""
    if rows.is_at_end:
        return True
    if len(rows.taken) == 1:
        return False
    columns = columns or len(row)
    if any(row[columns:]) or "\n" in "".join(row[path : path + 1]) or not _is_strict(rows.taken, separator):
        return True
    return any(_is_row(line, separator, columns, path) for line in rows.taken[1:])


def _is_strict(lines: list[str], separator: str) -> bool:
    """Tell whether quotation marks occur only at the ends of fields."""
    try:
        return bool(list(csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=True, strict=True)))
    except csv.Error:
        return False


def _is_row(line: str, separator: str, columns: int, path: int) -> bool:
    """Tell whether a line within a quoted row is a valid row itself."""
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return False
    return len(row) == columns and Path(row[path].strip()).suffix.lower() in SUFFIXES


def _unquoted(field: str) -> str:
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1].replace('""', '"') if quoted else field


def _fairseq(root: str, every: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(every, 1):
        if line.strip():
            name, _, samples = line.partition("\t")
            yield Record(
                number, {"path": f"{root.rstrip('/')}/{name.strip()}" if root != "." else name.strip(), "num_samples": samples}
            )
