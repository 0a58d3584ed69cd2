"""Random access to the rows of shards: row groups of Parquet, and runs of recordings in a tar."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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
LARGEST_GROUP = 4 * parquet_pages.ROOM
"""Largest size of the rows of a row group in memory, in bytes."""
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


class ParsedRow(NamedTuple):
    """A row.

    Attributes:
        columns: Values of the requested columns, by name.
        contents: Fields and arrays of the tokens.
        where: Description of the place for messages.
    """

    columns: dict[str, Any]
    contents: container.Contents
    where: str


StoredRow = Callable[[], ParsedRow]
"""A row as it is stored, which is parsed when it is called; raises `CorruptFile`."""


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
        start = size = 0
        for batch in file.iter_batches(most, row_groups=[group.number], columns=names, use_threads=False):
            wanted = range(max(first - start, 0), min(last - start, batch.num_rows))
            size += batch.nbytes if wanted else 0
            if size > LARGEST_GROUP:
                raise CorruptFile(f"{path} cannot be read: row group {group.number} takes more than {LARGEST_GROUP} bytes")
            yield from (partial(_parse_parquet, batch, number, columns, path) for number in wanted)
            start += batch.num_rows
            if start >= last:
                return
    raise CorruptFile(f"{path} is damaged: row group {group.number} has {start} rows, and {group.rows} according to its footer")


def _parse_parquet(batch: Any, number: int, columns: Collection[str], path: Path) -> ParsedRow:
    with damage(path):
        values = {name: python_value(batch.column(name)[number]) for name in batch.schema.names}
        where = f"{path}, {values.get('id')!r:.80}"
        return ParsedRow({name: values.get(name) for name in columns}, contents_of(values, where), where)


def _read_tar(path: Path, group: RowGroup, columns: Collection[str], first: int, last: int) -> Iterator[StoredRow]:
    with opened(path) as tar:
        for members in group.members[first:last]:
            data = {suffix: data_of(tar, member) for suffix, member in members.items()}
            yield partial(_parse_tar, data, columns, f"{path}:{members['.json'].name}")


def _parse_tar(data: Mapping[str, bytes], columns: Collection[str], where: str) -> ParsedRow:
    facts = facts_of(data, where)
    return ParsedRow({name: facts.get(name) for name in columns}, container.from_bytes(data[container.SUFFIX], where), where)


def check_columns(wanted: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise `InvalidInput` if a shard lacks a column that is wanted."""
    if missing := [name for name in wanted if name not in names]:
        raise InvalidInput(f"{where} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(names)}")
