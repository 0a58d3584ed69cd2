"""Rows of Parquet, with a path column or with embedded audio."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import CorruptFile, InvalidInput, reason
from .. import parquet_pages, shards
from ..arrow import arrow
from ..parquet_cells import Cell, bytes_a_row
from .columns import IDS, PAIRS, PATHS, Kind, meaning, normal
from .record import ALL, FIRST, MOST_NAMES, Record

TOGETHER = 1024
SMALL = 16 << 20
"""Largest batch in bytes that is converted to Python objects at once."""
EMBEDDED = (*PATHS, "bytes", "audio_bytes", "speech", "waveform")
NAMED = frozenset((*IDS, *(name for pair in PAIRS for name in pair)))
LHOTSE_PATHS = frozenset({"recording", "tracks", "sources"})
LHOTSE = LHOTSE_PATHS | {"channel", "channel_ids", "transforms"}
"""Columns specific to Lhotse's cuts and recordings."""
ODD = (ValueError, OverflowError, LookupError, NotImplementedError)
"""Errors of pyarrow for values that Python cannot represent."""


@dataclass(frozen=True)
class _Unread:
    """A cell that is not read, with the reason."""

    why: str


@dataclass(frozen=True)
class _Told:
    """Text for a value without a Python type. Not a `str`, so that it is not taken for a path or a time."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def parquet_records(path: Path, wanted: Collection[str] = (), names: dict[str, None] | None = None) -> Iterator[Record]:
    """Yield the rows of a Parquet file. Embedded audio is not read; the record states its cell.

    Only columns that may contain a path, an id or times, and wanted columns, are read.

    Args:
        wanted: Names of the carried columns, or `all`.
        names: Filled with the names of the file's columns, at most `MOST_NAMES` and the wanted ones.

    Raises:
        CorruptFile: The file is not Parquet, or is damaged.
        EngineNotAvailable: pyarrow is not installed.
        InvalidInput: A wanted column does not exist.
    """
    with shards.damage(path), parquet_pages.opened(path) as file:
        schema = file.schema_arrow
        _check_wanted(schema, wanted, path)
        if names is not None:
            names.update(dict.fromkeys((*islice(schema.names, MOST_NAMES), *(name for name in wanted if name != ALL))))
        embedded = _embedded(schema)
        leaves = [leaf for field in schema for leaf in _needed(field, wanted)]
        told = {} if embedded else _unread_paths(file.schema.to_arrow_schema(), leaves)
        number = 0
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            size = bytes_a_row(path, group, embedded) if embedded else 0
            if not leaves:  # pyarrow yields no batches without columns
                rows: Iterator[dict[str, Any] | str] = ({} for _ in range(facts.num_rows))
            else:
                together = parquet_pages.rows_at_once(file, path, group, leaves, most=TOGETHER)
                batches = file.iter_batches(together, row_groups=[group], columns=leaves, use_threads=False)
                rows = (row for batch in batches for row in _rows(batch))
            for row, values in enumerate(rows):
                number += 1
                if isinstance(values, str):
                    yield Record(number, problem=values)
                    continue
                yield Record(number, {**values, **told}, cell=Cell(embedded, group, row) if embedded else None, size=size)


def _check_wanted(schema: Any, wanted: Collection[str], path: Path) -> None:
    there = [field.name for field in schema if _leaves(field)]
    if missing := sorted({*wanted} - {ALL, *there}):
        known = ", ".join(map(repr, there[:MOST_NAMES])) or "none"
        raise InvalidInput(f"{path} has no column {', '.join(map(repr, missing))}; its columns are {known}")


def _needed(field: Any, wanted: Collection[str]) -> list[str]:
    """Return the Parquet paths of the columns to read of a field."""
    types, name, kind = arrow().types, normal(field.name), meaning(field.name).kind
    if ALL in wanted or field.name in wanted:
        return _leaves(field)
    if name in PATHS or name == FIRST:
        if types.is_struct(field.type):
            return _paths_of(field)
        return [field.name] if _is_text(field.type) else []
    if kind is Kind.FACT and types.is_nested(field.type):
        return []
    if kind in (Kind.FACT, Kind.UNKNOWN, Kind.SPAN) and types.is_temporal(field.type):  # a date is not a position in a recording
        return []
    return _leaves(field) if name in NAMED or field.name in LHOTSE or kind is not Kind.OTHER else []


def _paths_of(field: Any) -> list[str]:
    """Return the columns of a struct that locate a recording; empty if it contains decoded samples."""
    names = [own.name for own in field.type if _leaves(own)]
    if "array" in names and not any(_is_binary(own.type) for own in field.type):
        return []
    said = [name for name in names if normal(name) in PATHS or meaning(name).kind in (Kind.START, Kind.END)]
    return [f"{field.name}.{name}" for name in said]


def _unread_paths(schema: Any, leaves: Collection[str]) -> dict[str, _Told]:
    """Return columns that are named like paths but have another type, if no path column is read."""
    called = {field.name: field.type for field in schema if normal(field.name) in PATHS or field.name in LHOTSE_PATHS}
    if any(leaf == name or leaf.startswith(f"{name}.") for leaf in leaves for name in called):
        return {}
    return {name: _Told(str(kind)) for name, kind in called.items() if normal(name) in PATHS}


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield rows as dictionaries, or the error of a row."""
    names, is_large = batch.schema.names, batch.nbytes > SMALL
    for cells in zip(*(_cells(name, batch.column(number), is_large) for number, name in enumerate(names)), strict=True):
        wrong = next((cell.why for cell in cells if isinstance(cell, _Unread)), None)
        yield dict(zip(names, cells, strict=True)) if wrong is None else wrong


def _cells(name: str, column: Any, is_large: bool) -> Iterator[Any]:
    """Yield the values of a column; convert them one by one if they may be large."""
    if not is_large and not arrow().types.is_nested(column.type):
        try:
            yield from _in_python(column)
            return
        except ODD:  # for one of the values
            pass
    for number in range(len(column)):
        yield _cell(name, column.slice(number, 1))


def _cell(name: str, one: Any) -> Any:
    types, kind = arrow().types, one.type
    try:
        parquet_pages.check_row(one)
        (value,) = _in_python(one)
    except CorruptFile as error:
        return _Unread(f"{error}, in column {name!r}")
    except ODD as error:
        scalar = one[0].value if types.is_dictionary(kind) else one[0]
        if types.is_temporal(kind):
            return _Told(_written(one))
        if _is_text(kind):
            return bytes(scalar.as_buffer()).decode("utf-8", "surrogateescape")
        return _Unread(f"the column {name!r} has a value of type {kind} that Python cannot represent: {reason(error)}")
    return value


def _in_python(column: Any) -> list[Any]:
    """Convert values so that times do not depend on pandas; raise one of `ODD` if a time is finer than microseconds."""
    types, kind = arrow().types, column.type
    if types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        if types.is_timestamp(kind):
            column = column.cast(arrow().timestamp("us", kind.tz))
        else:
            column = column.cast(arrow().duration("us") if types.is_duration(kind) else arrow().time64("us"))
    return list(column.to_pylist())


def _written(one: Any) -> str:
    """Format a time or a date."""
    types, kind = arrow().types, one.type
    try:
        naive = one.cast(arrow().timestamp(kind.unit)) if types.is_timestamp(kind) and kind.tz else one
        text = "" if types.is_duration(kind) else str(naive.cast(arrow().string())[0].as_py())
    except ODD:
        text = ""
    if not text or text.startswith("<"):  # Arrow's text for values out of range
        return f"{one[0].value} {getattr(kind, 'unit', 'days')}"
    return text if naive is one else f"{text}+00:00"


def _embedded(schema: Any) -> str | None:
    """Return the Parquet path of the column of audio bytes: a struct's field `bytes`, or a binary column."""
    types = arrow().types
    found = []
    for field in schema:
        if types.is_struct(field.type):
            inner = [own.name for own in field.type if own.name == "bytes" and _is_binary(own.type)]
            found += [(field.name, f"{field.name}.{name}") for name in inner]
        elif _is_binary(field.type) and normal(field.name) in EMBEDDED:
            found.append((field.name, field.name))
    ranked = sorted(found, key=lambda pair: EMBEDDED.index(normal(pair[0])) if normal(pair[0]) in EMBEDDED else len(EMBEDDED))
    audio = [pair for pair in ranked if normal(pair[0]) == "audio"]
    return next((column for _, column in (*audio, *ranked)), None)


def _leaves(field: Any, within: str = "") -> list[str]:
    """Return the leaf columns of a field without binary ones."""
    types, name = arrow().types, f"{within}{field.name}"
    if not _has_binary(field.type):
        return [name]
    return [leaf for own in field.type for leaf in _leaves(own, f"{name}.")] if types.is_struct(field.type) else []


def _has_binary(kind: Any) -> bool:
    """Tell whether a type is or contains bytes."""
    if not arrow().types.is_nested(kind):
        return _is_binary(kind)
    return any(_has_binary(kind.field(number).type) for number in range(kind.num_fields))


def _is_binary(kind: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return any(
        is_it(kind) for is_it in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def _is_text(kind: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(is_it(kind) for is_it in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))
