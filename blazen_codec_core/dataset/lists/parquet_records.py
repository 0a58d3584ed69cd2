"""Rows of Parquet, with a column of paths or with the audio itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import CorruptFile
from .. import parquet_pages, shards
from ..arrow import arrow
from ..parquet_cells import Cell, bytes_a_row
from .columns import PATHS, normal
from .record import Record

TOGETHER = 1024
SMALL = 16 << 20
"""Bytes of rows that are made objects of Python together."""
EMBEDDED = (*PATHS, "bytes", "audio_bytes", "speech", "waveform")


def parquet_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a Parquet file. Audio in it stays there: a record says in which cell.

    Raises:
        CorruptFile: It is not Parquet, or is damaged.
        EngineNotAvailable: pyarrow is not installed.
    """
    with shards.damage(path), parquet_pages.opened(path) as file:
        embedded = _embedded(file.schema_arrow)
        names = [leaf for field in file.schema_arrow for leaf in _leaves(field)]
        number = 0
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            size = bytes_a_row(facts, embedded) if embedded else 0
            if not names:  # of which there would be no batches
                rows: Iterator[dict[str, Any] | str] = ({} for _ in range(facts.num_rows))
            else:
                together = parquet_pages.rows_at_once(file, path, group, names, most=TOGETHER)
                batches = file.iter_batches(together, row_groups=[group], columns=names, use_threads=False)
                rows = (row for batch in batches for row in _rows(batch))
            for row, values in enumerate(rows):
                number += 1
                if isinstance(values, str):
                    yield Record(number, problem=values)
                    continue
                yield Record(number, values, cell=Cell(embedded, group, row) if embedded else None, size=size)


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows as Python has them, or what is wrong with one."""
    if batch.nbytes <= SMALL and not any(arrow().types.is_nested(field.type) for field in batch.schema):
        yield from batch.to_pylist()
        return
    for number in range(batch.num_rows):
        row = batch.slice(number, 1)
        try:
            for column in row.columns:
                parquet_pages.check_row(column)
        except CorruptFile as error:
            yield str(error)
        else:
            yield from row.to_pylist()


def _embedded(schema: Any) -> str | None:
    """The column of audio as bytes, as Parquet calls it: of a struct with a field of that name, or by itself."""
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


def _leaves(field: Any) -> list[str]:
    """A column, without what is bytes in it."""
    types = arrow().types
    if _is_binary(field.type):
        return []
    if types.is_struct(field.type) and any(_is_binary(own.type) for own in field.type):
        return [f"{field.name}.{own.name}" for own in field.type if not _is_binary(own.type)]
    return [field.name]


def _is_binary(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
