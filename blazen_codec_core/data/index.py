"""Index of the row groups in folders of shards, local or remote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import shards
from ..dataset.row_groups import TAR, RowGroup, StoredRow, check_columns, outline_of_parquet, outline_of_tar, read_rows
from ..errors import CorruptFile, InvalidInput
from .remote import RemoteShard, is_remote, list_shards

Folder = str | PathLike[str]
LISTED_TOGETHER = 16
"""Remote shards that are listed at the same time."""
MOST_ROWS = 1 << 48
"""Most rows in an index."""


@dataclass(frozen=True)
class LocalShard:
    """A shard in a local folder."""

    path: Path

    @property
    def name(self) -> str:
        """Name in messages."""
        return str(self.path)

    def local(self) -> Path:
        """Return a local path of the shard."""
        return self.path

    def outline(self) -> tuple[list[RowGroup], list[str]]:
        """Return the row groups and column names; raise `CorruptFile` if the shard is damaged."""
        if self.path.suffix == TAR:
            return outline_of_tar(self.path)
        with shards.damage(self.path), self.path.open("rb") as file:
            return outline_of_parquet(file, self.path.stat().st_size, self.name)


class Index:
    """Row groups of all shards, in the order of the folders and of the names.

    Args:
        folders: Folders of shards, single shards, or addresses that fsspec opens.
        columns: Columns that every shard must have.
        cache: Local folder for remote shards; `None` if there are none.
        storage: Options of the remote file system.

    Attributes:
        ends: Number of rows up to the end of each row group, int64.
        sizes: Approximate size of each row group in memory in bytes, int64.
        fingerprint: Digest of the names of shards and of their numbers of rows.

    Raises:
        InvalidInput: There are no shards, no rows, or not the columns.
        CorruptFile: A shard is damaged, or is not one of tokens.
    """

    def __init__(self, folders: Sequence[Folder], columns: Sequence[str], cache: Path | None, storage: Mapping[str, Any]) -> None:
        self._shards = [shard for folder in folders for shard in _shards_in(folder, cache, storage)]
        self._groups: list[tuple[int, RowGroup]] = []
        digest = hashlib.blake2b(digest_size=8)
        for number, (shard, (groups, names)) in enumerate(zip(self._shards, _outlines(self._shards), strict=True)):
            if groups:
                check_columns(columns, names, shard.name)
            self._groups += [(number, group) for group in groups if group.rows]
            digest.update(f"{Path(shard.name).name} {[group.rows for group in groups]}\n".encode("utf-8", "surrogateescape"))
        if sum(group.rows for _, group in self._groups) > MOST_ROWS:
            raise CorruptFile(f"{', '.join(map(str, folders))} claims more than {MOST_ROWS} rows")
        self.ends: NDArray[np.int64] = np.cumsum([group.rows for _, group in self._groups], dtype=np.int64)
        self.sizes: NDArray[np.int64] = np.array([min(group.size, MOST_ROWS) for _, group in self._groups], np.int64)
        self.fingerprint = digest.hexdigest()
        if not self._groups:
            raise InvalidInput(f"{', '.join(map(str, folders)) or 'no folder'} has no row. Did every recording fail?")

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.ends[-1])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Number of rows of each row group, int64."""
        return np.diff(self.ends, prepend=0)

    def group_of(self, row: int) -> tuple[int, int]:
        """Return the row group of a row, and the row's number in it."""
        group = int(np.searchsorted(self.ends, row, side="right"))
        return group, row - self.first(group)

    def first(self, group: int) -> int:
        """Return the number of the first row of a row group."""
        return int(self.ends[group - 1]) if group else 0

    def read(self, group: int, columns: Sequence[str], first: int = 0, last: int | None = None) -> list[StoredRow]:
        """Read rows `first` to `last` of a row group; raise `CorruptFile` if the shard is damaged."""
        number, found = self._groups[group]
        return read_rows(self._shards[number].local(), found, columns, first, last)


def _shards_in(folder: Folder, cache: Path | None, storage: Mapping[str, Any]) -> list[LocalShard | RemoteShard]:
    if not isinstance(folder, str | PathLike) or isinstance(fspath(folder), bytes):
        raise InvalidInput(f"folder is {folder!r}; expected a path or an address")
    if cache is not None and is_remote(fspath(folder)):
        return [*list_shards(fspath(folder), cache, storage)]
    for path in (found := shards.files(folder)):
        shards.format_of(path)
    return [LocalShard(path) for path in found]


def _outlines(found: Sequence[LocalShard | RemoteShard]) -> Iterator[tuple[list[RowGroup], list[str]]]:
    if not any(isinstance(shard, RemoteShard) for shard in found):
        yield from (shard.outline() for shard in found)
        return
    with ThreadPoolExecutor(LISTED_TOGETHER) as threads:
        yield from threads.map(lambda shard: shard.outline(), found)
