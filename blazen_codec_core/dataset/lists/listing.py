"""Recordings of a list, in any supported format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ...audio import SUFFIXES
from ...errors import CodecError, InvalidInput
from ..items import AudioItem, Entry, Fault, printable
from . import kaldi
from .columns import ColumnNotUnderstood
from .json_records import json_records
from .parquet_records import parquet_records
from .record import ALL, FIRST, MOST_NAMES, Place, Record
from .shapes import SHAPES, Shape
from .table_records import line_records, table_records
from .text import DECOMPRESSORS

READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    **dict.fromkeys((".json", ".jsonl", ".jsonlines", ".ndjson", ".manifest"), json_records),
    **dict.fromkeys((".csv", ".psv", ".tsv"), table_records),
    **dict.fromkeys((".list", ".lst", ".m3u", ".m3u8", ".txt"), line_records),
    **dict.fromkeys((".parquet", ".pq"), parquet_records),
}
"""Readers by suffix, without the suffix of a compression."""
KALDI = ".scp"
FOLDERS = ("clips", "wavs", "wav", "audio")
"""Folders beside a list that its paths may be relative to, as in Common Voice and LJSpeech."""
UNTYPED = frozenset({table_records, line_records})
"""Readers of formats that store all values as text."""
HEAD = 20
"""Number of rows of a list without a header among which one must name an existing file."""
MOST_PENDING = 1000
"""Number of leading rows without a path after which a file is not a list."""


def suffix_of(path: Path) -> str:
    """Return the suffix that determines the format of a list."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in DECOMPRESSORS else suffix


def is_list(path: Path) -> bool:
    """Tell whether a file name is that of a list."""
    return suffix_of(path) in READERS or suffix_of(path) == KALDI or path.name == kaldi.SEGMENTS


def is_typed(path: Path) -> bool:
    """Tell whether the values of a list have types."""
    return READERS.get(suffix_of(path)) not in UNTYPED


def entries(path: Path, columns: Collection[str] = (), names: dict[str, None] | None = None) -> Iterator[Entry]:
    """Yield the recordings of a list, and faults for invalid rows.

    Args:
        columns: Names of the carried columns, or `all`.
        names: Filled with the names of the list's columns, at most `MOST_NAMES`.

    Raises:
        InvalidInput: The list is empty, has no path column, or a column names a time in an unknown way.
        CorruptFile: The list cannot be read.
    """
    if suffix_of(path) == KALDI or path.name == kaldi.SEGMENTS:
        found = _kaldi(path)
    else:
        found = _Listing(path, columns, {} if names is None else names).entries()
    empty = True
    for entry in found:
        empty = False
        yield entry
    if empty:
        raise InvalidInput(f"{path} is empty")


class _Listing:
    """State of reading one list."""

    def __init__(self, path: Path, columns: Collection[str], names: dict[str, None]) -> None:
        self._path, self._root, self._names = path, path.parent, names
        self._reader = READERS[suffix_of(path)]
        self._columns = frozenset(columns)
        self._shapes: list[Shape] = [shape(self._columns) for shape in SHAPES]
        self._folders = [name for name in FOLDERS if (self._root / name).is_dir()]
        self._guess = ("", "")

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, once the file is known to be a list of recordings."""
        known, has_names, pending = False, False, list[Entry]()
        for record in self._records():
            if len(self._names) < MOST_NAMES and self._reader is not parquet_records:
                self._names.update(dict.fromkeys(record.values))
                self._check_columns(record)
            self._names.update(dict.fromkeys(name for name in self._columns if name in record.values))
            has_names = has_names or (bool(self._names) and not record.problem)
            shape = next((shape for shape in self._shapes if shape.matches(record)), None)
            known = known or (shape is not None and self._is_plausible(record, shape))
            entry = self._entry(record, shape)
            if known:
                yield from pending
                pending.clear()
                yield entry
                continue
            pending.append(entry)
            if not has_names:  # only broken rows so far, which do not tell whether this is a list
                yield pending.pop()
            elif len(pending) >= (HEAD if self._has_no_names(record) else MOST_PENDING):
                break
        if pending:
            raise InvalidInput(
                f"{self._path} has no path column; expected a name such as path, file_name or audio_filepath "
                f"among {', '.join(map(repr, self._names))}"
            )

    def _records(self) -> Iterator[Record]:
        """Yield the rows; for Parquet, also collect the column names, because few columns are read."""
        if self._reader is parquet_records:
            return parquet_records(self._path, self._columns, self._names)
        return self._reader(self._path)

    def _check_columns(self, record: Record) -> None:
        """Raise early if a requested column cannot occur in any row of a table."""
        missing = sorted(self._columns - {ALL, *record.values})
        if missing and record.values and self._reader is not json_records:
            there = ", ".join(map(repr, record.values))
            raise InvalidInput(f"{self._path} has no column {', '.join(map(repr, missing))}; its columns are {there}")

    def _is_plausible(self, record: Record, shape: Shape) -> bool:
        """Tell whether a list names recordings: it has a header, or the file that it names exists."""
        if not self._has_no_names(record) or self._reader is line_records:
            return True
        return self._resolved((str(record.values[FIRST]),), guess=True) is not None

    @staticmethod
    def _has_no_names(record: Record) -> bool:
        return FIRST in record.values

    def _entry(self, record: Record, shape: Shape | None) -> Entry:
        where = f"{self._path.name}, row {record.number}"
        try:
            if record.problem:
                raise InvalidInput(record.problem)
            if shape is None:
                raise InvalidInput("the row has no path")
            place = shape.place(record)
            item = self._embedded(record, place) if record.cell is not None else self._item(record, place)
        except ColumnNotUnderstood as error:
            raise ColumnNotUnderstood(f"{self._path}: {error}") from error
        except Exception as error:
            identity = record.values.get("id")
            id = str(identity) if isinstance(identity, str | int) and identity != "" else f"{self._path.name}#{record.number}"
            told = error if isinstance(error, CodecError) else InvalidInput(f"{type(error).__name__}: {error}")
            return Fault.of(id, where, type(told)(f"{where}: {told}"))
        return item

    def _item(self, record: Record, place: Place) -> AudioItem:
        path = self._resolved(place.paths, guess=self._has_no_names(record)) or place.paths[0]
        return _item(path, place, place.paths[0], self._carried(record, place))

    def _embedded(self, record: Record, place: Place) -> AudioItem:
        name = place.id or f"{self._path.name}/{record.number - 1}{_part(place)}"
        return AudioItem(
            printable(name), self._path.name, place.paths[0] if place.paths else None, size=record.size,
            start=place.start or 0.0, end=place.end, lasts=place.lasts, cell=record.cell, carried=self._carried(record, place),
        )  # fmt: skip

    def _carried(self, record: Record, place: Place) -> dict[str, Any]:
        if not self._columns:
            return {}
        if ALL in self._columns:
            return {name: value for name, value in record.values.items() if name not in place.used}
        return {name: value for name, value in record.values.items() if name in self._columns}

    def _resolved(self, paths: tuple[str, ...], guess: bool) -> str | None:
        """Find a file relative to the list or a folder there; with `guess`, try all audio suffixes. `None` if missing."""
        if len(paths) == 1 and not guess and not self._folders:
            return paths[0]
        for path in paths:
            suffixes = ["", *sorted(SUFFIXES)] if guess and Path(path).suffix.lower() not in SUFFIXES else [""]
            tried = [(folder, suffix) for suffix in suffixes for folder in ("", *self._folders)]
            for folder, suffix in ([self._guess] if self._guess in tried else []) + tried:
                name = f"{folder}/{path}{suffix}" if folder else f"{path}{suffix}"
                if _is_file(self._root / name):
                    self._guess = (folder, suffix)
                    return name
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _kaldi(path: Path) -> Iterator[Entry]:
    has_segments = path.with_name(kaldi.SEGMENTS).is_file() and path.name == kaldi.SCRIPT
    for record, place in kaldi.kaldi_places(path):
        where = f"{kaldi.SEGMENTS if has_segments else path.name}, line {record.number}"
        try:
            if isinstance(place, InvalidInput):
                raise place
            first, *others = place.paths
            there = next((name for name in place.paths if others and _is_file(path.parent / name)), first)
            yield _item(there, place, first)
        except InvalidInput as error:
            yield Fault.of(str(record.values["id"]), where, InvalidInput(f"{where}: {error}"))


def _item(path: str, place: Place, listed: str, carried: dict[str, Any] | None = None) -> AudioItem:
    if "\0" in path:
        raise InvalidInput(f"the path {path!r} contains a NUL character")
    name = place.id or f"{listed}{_part(place)}"
    return AudioItem(
        printable(name), path, start=place.start or 0.0, end=place.end, lasts=place.lasts, carried=carried or {}
    )  # fmt: skip


def _part(place: Place) -> str:
    """Return the id suffix that distinguishes parts of a recording; empty for the whole."""
    if place.start is None and place.end is None:
        return ""
    return f"#{place.start or 0:.12g}-{'' if place.end is None else f'{place.end:.12g}'}"
