"""Random access to the rows of shards: row groups of Parquet, and runs of recordings in a tar."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CorruptFile, InvalidInput
from ..files import opened
from ..tokens import container
from . import parquet_footer, parquet_pages, tar_member
from .rows import contents_of
from .shards import FORMATS, TOGETHER, damage, data_of, facts_of, python_value, samples

TOKENS = ("id", "codes", "scales", "header")
"""Parquet columns from which tokens are restored."""
NEEDED = ("id", "codes", "header")
"""Those that every shard has."""
MAGIC = b"PAR1"
PARQUET, TAR = (FORMATS[name].suffix for name in ("parquet", "tar"))


@dataclass(frozen=True)
class RowGroup:
    """Consecutive rows of a shard that are read together.

    Attributes:
        rows: Number of rows.
        size: Approximate size of the rows in memory, in bytes.
        number: Number of the row group in a Parquet file.
        members: Members of each recording in a tar, by suffix.
    """

    rows: int
    size: int
    number: int = 0
    members: tuple[Mapping[str, tar_member.Member], ...] = ()


@dataclass(frozen=True)
class StoredRow:
    """A row as it is stored; its tokens are parsed on demand.

    Attributes:
        columns: Values of the requested columns, by name.
        where: Description of the place for messages.
        load: Parses the fields and arrays of the tokens; raises `CorruptFile`.
    """

    columns: Mapping[str, Any]
    where: str
    load: Callable[[], container.Contents]


def outline_of_parquet(file: BinaryIO, size: int, where: str) -> tuple[list[RowGroup], list[str]]:
    """Return the row groups and column names of an open Parquet file of `size` bytes.

    Raises:
        CorruptFile: The file is damaged, or has no rows of tokens.
    """
    file.seek(max(0, size - len(MAGIC)))
    if file.read(len(MAGIC)) != MAGIC:
        raise CorruptFile(f"{where} is not Parquet, or is truncated")
    groups, names = [], dict[str, None]()
    for number, group in enumerate(parquet_footer.groups_of(file, size, where)):
        names.update(dict.fromkeys(chunk.path_in_schema.partition(".")[0] for chunk in group.chunks))
        codes = [chunk.total_uncompressed_size for chunk in group.chunks if chunk.path_in_schema.startswith("codes.")]
        groups.append(RowGroup(group.num_rows, sum(codes), number))
    if groups and (missing := [name for name in NEEDED if name not in names]):
        raise CorruptFile(f"{where} has no rows of tokens: the column {missing[0]!r} is missing")
    return groups, list(names)


def outline_of_tar(path: Path) -> tuple[list[RowGroup], list[str]]:
    """Return runs of recordings of a tar, and the columns of the first; see `outline_of_parquet`."""
    with damage(path):
        members = [own for _, own in samples(path)]
        runs = [tuple(members[start : start + TOGETHER]) for start in range(0, len(members), TOGETHER)]
        if not members:
            return [], []
        with opened(path) as tar:
            names = list(facts_of({".json": data_of(tar, members[0][".json"])}, str(path)))
    return [RowGroup(len(run), sum(own[container.SUFFIX].size for own in run), members=run) for run in runs], names


def read_rows(path: Path, group: RowGroup, columns: Collection[str], first: int = 0, last: int | None = None) -> list[StoredRow]:
    """Read rows `first` to `last` of a group, with the named columns besides the tokens.

    Raises:
        CorruptFile: The shard is damaged, or is not as it was when the group was listed.
        InvalidInput: The shard is gone.
    """
    read = _read_tar if path.suffix == TAR else _read_parquet
    with damage(path):
        return list(read(path, group, columns, first, group.rows if last is None else last))


def _read_parquet(path: Path, group: RowGroup, columns: Collection[str], first: int, last: int) -> Iterator[StoredRow]:
    with parquet_pages.opened(path) as file:
        if group.number >= file.num_row_groups:
            raise CorruptFile(f"{path} has changed: row group {group.number} is missing. Make the dataset object again")
        names = [name for name in file.schema_arrow.names if name in TOKENS or name in columns]
        most = parquet_pages.rows_at_once(file, path, group.number, names, most=TOGETHER)
        start, texts = 0, _Texts(path)
        for batch in file.iter_batches(most, row_groups=[group.number], columns=names, use_threads=False):
            for number in range(max(first - start, 0), min(last - start, batch.num_rows)):
                values = {name: texts.shared(python_value(batch.column(name)[number])) for name in names}
                yield _parquet_row(values, columns, str(path))
            start += batch.num_rows
            if start >= last:
                return
    raise CorruptFile(f"{path} is damaged: row group {group.number} has {start} rows, and {group.rows} according to its footer")


class _Texts:
    """Texts of a row group, each of which is in memory once: a file may repeat a long text in every row."""

    def __init__(self, path: Path) -> None:
        self._path, self._texts, self._size = path, dict[str, str](), 0

    def shared(self, value: Any) -> Any:
        """Return an equal text that was there before, or the value; raise `CorruptFile` if all texts are too long."""
        if not isinstance(value, str):
            return value
        if value not in self._texts:
            self._size += len(value)
            if self._size > parquet_pages.ROOM:
                raise CorruptFile(f"{self._path} has more than {parquet_pages.ROOM} characters of text in a row group")
        return self._texts.setdefault(value, value)


def _parquet_row(values: dict[str, Any], columns: Collection[str], path: str) -> StoredRow:
    where = f"{path}, {values.get('id')!r:.80}"
    stored = {name: values[name] for name in TOKENS if name in values}
    return StoredRow({name: values.get(name) for name in columns}, where, lambda: contents_of(stored, where))


def _read_tar(path: Path, group: RowGroup, columns: Collection[str], first: int, last: int) -> Iterator[StoredRow]:
    with opened(path) as tar:
        for members in group.members[first:last]:
            where = f"{path}:{members['.json'].name}"
            facts = facts_of({".json": data_of(tar, members[".json"])}, where)
            yield _tar_row(data_of(tar, members[container.SUFFIX]), {name: facts.get(name) for name in columns}, where)


def _tar_row(data: bytes, columns: dict[str, Any], where: str) -> StoredRow:
    return StoredRow(columns, where, lambda: container.from_bytes(data, where))


def check_columns(wanted: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise `InvalidInput` if a shard lacks a column that is wanted."""
    if missing := [name for name in wanted if name not in names]:
        raise InvalidInput(f"{where} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(names)}")
