"""Kaldi's data directories: `wav.scp`, and optionally `segments`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...errors import InvalidInput
from . import columns
from .record import Place, Record
from .shapes import address
from .text import lines, opened

SCRIPT, SEGMENTS = "wav.scp", "segments"
BESIDE = (SEGMENTS, "utt2spk", "spk2utt")
"""Companion files; a folder with `wav.scp` and one of these is a data directory."""


def is_data_directory(folder: Path) -> bool:
    """Tell whether a folder is a Kaldi data directory."""
    return (folder / SCRIPT).is_file() and any((folder / name).is_file() for name in BESIDE)


def kaldi_places(path: Path) -> Iterator[tuple[Record, Place | InvalidInput]]:
    """Yield the location of the recording of each line, or the error of the line.

    Args:
        path: Path of `wav.scp` or `segments`. `segments` is used if it exists.

    Raises:
        InvalidInput: `wav.scp` does not exist.
    """
    script, segments = path.with_name(SCRIPT), path.with_name(SEGMENTS)
    if path.name == SEGMENTS and not script.is_file():
        raise InvalidInput(f"{path} has no {SCRIPT} beside it")
    if path.name in (SCRIPT, SEGMENTS) and segments.is_file():
        yield from _segments(script, segments)
    else:
        yield from ((record, _whole(record)) for record in _records(path))


def _records(path: Path) -> Iterator[Record]:
    """Split lines into an id and the rest."""
    with opened(path) as text:
        for number, line in enumerate(lines(text, path), 1):
            if line.strip():
                name, *rest = line.strip().split(None, 1)
                yield Record(number, {"id": name, "path": rest[0] if rest else ""})


def _whole(record: Record) -> Place | InvalidInput:
    try:
        return Place(_paths(record.values["path"]), record.values["id"])
    except InvalidInput as error:
        return error


def _paths(value: str) -> tuple[str, ...]:
    """Return candidate paths: relative to the list, and to the current folder, because Kaldi runs in the recipe's folder."""
    path = address(value)
    return (path, os.path.abspath(path))


def _segments(script: Path, segments: Path) -> Iterator[tuple[Record, Place | InvalidInput]]:
    """Yield parts of recordings; the paths are indexed in a temporary database to bound memory."""
    with closing(sqlite3.connect("")) as index:
        index.execute("CREATE TABLE recordings (id BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        pairs = ((_bytes(record.values["id"]), _bytes(record.values["path"])) for record in _records(script))
        index.executemany("INSERT OR IGNORE INTO recordings VALUES (?, ?)", pairs)
        for record in _records(segments):
            try:
                yield record, _part(record, index)
            except InvalidInput as error:
                yield record, error


def _part(record: Record, index: sqlite3.Connection) -> Place:
    fields = record.values["path"].split()
    if len(fields) not in (3, 4):
        raise InvalidInput(f"the segment has {1 + len(fields)} fields; expected id, recording, start and end")
    found = index.execute("SELECT path FROM recordings WHERE id = ?", (_bytes(fields[0]),)).fetchone()
    if found is None:
        raise InvalidInput(f"the recording {fields[0]} is not in {SCRIPT}")
    if len(fields) == 4 and fields[3] not in ("0", "A"):
        raise InvalidInput(f"the segment selects channel {fields[3]}, which is not supported. Extract the channel first")
    start = columns.seconds("start", fields[1], 1.0)
    end = None if fields[2].startswith("-1") else columns.seconds("end", fields[2], 1.0)
    if end is not None and end <= (start or 0.0):
        raise InvalidInput(f"the part ends at {end:g} s, before it starts")
    lasts = None if end is None else end - (start or 0.0)
    return Place(_paths(found[0].decode("utf-8", "surrogateescape")), record.values["id"], start, end, lasts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
