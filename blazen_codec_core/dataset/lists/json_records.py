"""Rows of JSON: JSON lines, the elements of an array, or the values of one object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from ...errors import CorruptFile
from ...foreign_json import NotJson, TooMuch, end_of, is_deeper, parse, parse_next
from . import columns
from .record import Record
from .text import LONGEST_LINE, lines, opened

CHUNK = 1 << 16
DEEPEST = 100
"""Deepest nesting of a row."""
IN_A_DOCUMENT = DEEPEST + 2
"""Deepest nesting of an object that contains all rows."""
LARGEST_OBJECT = 256 << 20
"""Largest file that is a single object, in characters; it is parsed in memory."""
MOST_OF_OBJECT = 1 << 24
"""Most values in such a file."""


def json_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a JSON list.

    Raises:
        CorruptFile: The file is not JSON.
    """
    with opened(path) as text:
        first = next((line for line in _begin(text, path) if line.strip()), "")
        if first.lstrip().startswith("["):
            yield from _elements(first, text, path)
        elif _is_document(first):
            yield from _document(first, text, path)
        else:
            yield from _lines(chain([first], lines(text, path)), path)


def _begin(text: TextIO, path: Path) -> Iterator[str]:
    """Yield the beginning of the file: `[` for an array, else the first line."""
    start = text.read(1)
    while start.isspace():
        start = text.read(1)
    if start == "[":
        yield start
    elif start:
        yield start + next(lines(text, path), "")


def _is_document(first: str) -> bool:
    """Tell whether a file with this first line is a single object."""
    try:
        value = parse(first, deepest=IN_A_DOCUMENT, most=MOST_OF_OBJECT, lenient=True)
        return isinstance(value, dict) and _rows_of(value) != [value]
    except TooMuch:  # presumably a single large row
        return False
    except NotJson:
        return first.startswith("{") and first.rstrip()[-1] in "{[,:"


def _rows_of(value: Any) -> list[Any]:
    """Return the rows of a document: itself, the elements of its only list, or its values with the keys as ids."""
    if not isinstance(value, dict) or not value:
        return [value]
    if any(columns.normal(name) in (*columns.PATHS, "sources", "recording", "tracks") for name in value):
        return [value]
    if all(isinstance(row, dict) for row in value.values()):
        return [{**row, "id": row.get("id", name)} for name, row in value.items()]
    listed = [rows for rows in value.values() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    return listed[0] if len(listed) == 1 else [value]


def _record(number: int, value: Any) -> Record:
    if is_deeper(value, DEEPEST):
        return Record(number, problem=f"the row is nested too deeply: more than {DEEPEST} levels")
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, dict):
        return Record(number, problem=f"the row is {json.dumps(value)[:80]}; expected an object")
    return Record(number, value)


def _lines(rows: Iterable[str], path: Path) -> Iterator[Record]:
    is_json = False
    for number, line in enumerate(rows, 1):
        if not line.strip():
            continue
        try:
            value = parse(line, deepest=DEEPEST, lenient=True)
        except NotJson as error:
            if not is_json and not line.lstrip().startswith("{"):
                raise CorruptFile(f"{path} cannot be read as a list of recordings: it {error}") from error
            yield Record(number, problem=f"the row {error}")
            continue
        is_json = True
        yield _record(number, value)


def _document(first: str, text: TextIO, path: Path) -> Iterator[Record]:
    content = first + "\n" + text.read(LARGEST_OBJECT)
    if len(content) > LARGEST_OBJECT:
        raise CorruptFile(
            f"{path} is one JSON object of more than {LARGEST_OBJECT >> 20} MiB. Write one line per recording (JSON lines)"
        )
    at, number = 0, 0
    while at < len(content):
        try:
            value, at = parse_next(content, at, deepest=IN_A_DOCUMENT, most=MOST_OF_OBJECT)
        except NotJson as error:
            raise CorruptFile(f"{path} cannot be read as a list of recordings: it {error}") from error
        for row in _rows_of(value):
            number += 1
            yield _record(number, row)
        at += len(content[at:]) - len(content[at:].lstrip()) if content[at : at + 1].isspace() else 0


def _elements(start: str, text: TextIO, path: Path) -> Iterator[Record]:
    """Yield the elements of an array as they are parsed."""
    buffer, at, number, more = start, 1, 0, CHUNK
    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n,":
            at += 1
        if at < len(buffer) and buffer[at] == "]":
            return
        try:
            value, end = parse_next(buffer, at, deepest=DEEPEST)
            whole = end < len(buffer)  # otherwise a number may continue in the next chunk
            problem = "ends within an array"
            record = _record(number + 1, value) if whole else None
        except TooMuch as error:
            end, problem = end_of(buffer, at), str(error)
            whole, record = bool(end), Record(number + 1, problem=f"the row {error}")
        except NotJson as error:
            whole, problem = False, str(error)
        if whole and record:
            number, at, more = number + 1, end, CHUNK
            yield record
            continue
        chunk = text.read(more) if len(buffer) - at < LONGEST_LINE else ""
        if not chunk:
            if not number:
                raise CorruptFile(f"{path} cannot be read as a list of recordings: it {problem}")
            yield Record(number + 1, problem=f"from here on, it {problem}")
            return
        buffer, at, more = buffer[at:] + chunk, 0, 2 * more
