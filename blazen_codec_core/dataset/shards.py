"""Shards of a dataset: files of rows, in Parquet or as tars with one token container per recording."""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CodecError, CorruptFile, InvalidInput, reason
from ..files import existing, opened, replacing
from ..foreign_json import NotJson, parse_object
from ..specs import CodecSpec
from ..tokens import container
from ..tokens.tokens import CodecTokens
from . import parquet_pages, tar_member
from .arrow import arrow, parquet
from .rows import LARGEST_SHORT, VERSION, Row, listed, tokens_from_row

TOGETHER = 256
"""Rows per Parquet row group."""
PREFIX = "tokens-"
"""Prefix of shard names."""
NOTHING: Mapping[str, str] = {}
UNREADABLE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError, MemoryError, OSError,
    tarfile.TarError,
)  # fmt: skip
"""Errors that libraries raise for damaged files."""
AT_ONCE = 16
"""Most rows in memory while a shard is read."""
MOST_LISTS = 1 << 15
"""Most lists of codes in a row: 1024 codebooks of 32 streams."""
LISTED, LISTED_TOGETHER = ("id", "duration"), 4096
"""Columns that are read to list a shard, and the number of rows at a time."""


class ShardFormat(ABC):
    """A file format for shards.

    Attributes:
        suffix: File suffix.
    """

    suffix: str

    def check_available(self) -> None:  # noqa: B027 most need nothing
        """Raise `EngineNotAvailable` if a package is missing."""

    @abstractmethod
    def write(self, path: Path, spec: CodecSpec, rows: Sequence[Row], carried: Mapping[str, str] = NOTHING) -> None:
        """Write a shard atomically; the same rows give the same bytes.

        Args:
            carried: Types of the carried columns by name; see `carried.Column`.

        Raises:
            InvalidInput: The file cannot be written.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows, with few in memory at a time.

        Raises:
            CorruptFile: The file is not a shard, or is damaged.
        """

    @abstractmethod
    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        """Yield the id and duration in seconds of each row, without reading tokens."""


class ParquetShards(ShardFormat):
    """One Parquet row per recording (schema in `rows`)."""

    suffix = ".parquet"

    def check_available(self) -> None:
        parquet()

    def write(self, path: Path, spec: CodecSpec, rows: Sequence[Row], carried: Mapping[str, str] = NOTHING) -> None:
        columns = schema(spec, carried)
        with replacing(path) as temporary, parquet().ParquetWriter(temporary, columns, **_packing(rows)) as writer:
            for together in _groups(rows):
                writer.write_table(arrow().Table.from_pylist([row.columns for row in together], schema=columns))

    def read(self, path: Path) -> Iterator[Row]:
        with damage(path), parquet_pages.opened(path) as file:
            for batch in parquet_pages.batches(file, path, most=AT_ONCE):
                for number in range(batch.num_rows):
                    columns = {name: python_value(batch.column(name)[number]) for name in batch.schema.names}
                    yield Row.of(columns, tokens_from_row(columns, str(path)), str(path))

    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        with damage(path), parquet_pages.opened(path) as file:
            for batch in parquet_pages.batches(file, path, LISTED, most=LISTED_TOGETHER):
                if missing := [name for name in LISTED if name not in batch.schema.names]:
                    raise CorruptFile(f"{path} has no rows of tokens: the column {missing[0]!r} is missing")
                for row in batch.to_pylist():
                    yield listed(row, str(path))


class TarShards(ShardFormat):
    """WebDataset tar with two members per recording: `NUMBER.tokens`, a container, and `NUMBER.json`, the other columns."""

    suffix = ".tar"

    def write(self, path: Path, spec: CodecSpec, rows: Sequence[Row], carried: Mapping[str, str] = NOTHING) -> None:
        with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for number, row in enumerate(rows):
                facts = json.dumps(row.facts, ensure_ascii=False).encode()
                for suffix, data in ((container.SUFFIX, row.tokens.to_bytes()), (".json", facts)):
                    member = tarfile.TarInfo(f"{number:06d}{suffix}")  # no mtime and owner, so that archives are reproducible
                    member.size, member.mode = len(data), 0o644
                    tar.addfile(member, io.BytesIO(data))

    def read(self, path: Path) -> Iterator[Row]:
        for name, members in self._samples(path):
            where = f"{path}:{name}"
            yield Row.of(facts_of(members, where), CodecTokens.from_container(members[container.SUFFIX], where), where)

    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        for name, members in self._samples(path):
            where = f"{path}:{name}"
            yield listed(facts_of(members, where), where)

    def _samples(self, path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
        with damage(path), opened(path) as tar:
            for stem, members in samples(path):
                yield stem, {suffix: data_of(tar, member) for suffix, member in members.items()}


def samples(path: Path) -> Iterator[tuple[str, dict[str, tar_member.Member]]]:
    """Yield the name and members of each recording in a tar, by suffix, without reading their content.

    Raises:
        CorruptFile: The tar is damaged, or a member is missing or cannot be read.
    """
    members: dict[str, tar_member.Member] = {}
    for member in tar_member.members(path):
        stem, suffix = Path(member.name).stem, Path(member.name).suffix
        if suffix not in (container.SUFFIX, ".json"):
            continue
        if member.problem or suffix in members:
            raise CorruptFile(f"{path}:{member.name} cannot be read: {member.problem or 'it occurs twice'}")
        members[suffix] = member
        if len(members) == 2:
            yield stem, members
            members = {}
    if members:
        raise CorruptFile(f"{path} is truncated")


FORMATS: dict[str, ShardFormat] = {"parquet": ParquetShards(), "tar": TarShards()}


def name_of(number: int, count: int, suffix: str) -> str:
    """Return the file name of a shard, given its number and the number of shards."""
    return f"{PREFIX}{number:05d}-of-{count:05d}{suffix}"


def format_of(path: Path) -> ShardFormat:
    """Return the format of a shard by its suffix; raise `InvalidInput` for other suffixes."""
    for kind in FORMATS.values():
        if path.suffix == kind.suffix:
            return kind
    raise InvalidInput(f"{path} is not a shard; expected a suffix of {', '.join(kind.suffix for kind in FORMATS.values())}")


def files(path: str | PathLike[str]) -> list[Path]:
    """List the shards of a dataset in order; `path` may be a single shard.

    Raises:
        InvalidInput: There are no shards.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(file for kind in FORMATS.values() for file in path.glob(f"*{kind.suffix}") if not file.name.startswith("."))
    if not found:
        raise InvalidInput(f"{path} has no shards of tokens (*{', *'.join(kind.suffix for kind in FORMATS.values())})")
    return found


def read_tokens(source: str | PathLike[str]) -> Iterator[tuple[str, CodecTokens]]:
    """Yield the id and tokens of each row of a dataset of `blazen-codec tokenize`, or of one of its shards.

    Raises:
        InvalidInput: There are no shards.
        CorruptFile: A shard cannot be read.
        EngineNotAvailable: pyarrow is not installed.
    """
    for path in files(source):
        for row in format_of(path).read(path):
            yield row.id, row.tokens


def schema(spec: CodecSpec, carried: Mapping[str, str] = NOTHING) -> Any:
    """Return the Arrow schema for a model's rows: the columns of `rows`, then the carried ones."""
    pa = arrow()
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
    code = pa.uint16() if spec.codebook_size <= LARGEST_SHORT else pa.uint32()
    columns = {
        "id": pa.string(),
        "path": pa.string(),
        "start": pa.float64(),
        "duration": pa.float64(),
        "channels": pa.int16(),
        "codec": pa.string(),
        "weights": pa.string(),
        "bandwidth": pa.float64(),
        "options": pa.string(),
        "sample_rate": pa.int32(),
        "num_samples": pa.int64(),
        "source_sample_rate": pa.int32(),
        "source_num_samples": pa.int64(),
        "source_channels": pa.int16(),
        "remarks": pa.list_(pa.string()),
        "codes": pa.list_(pa.list_(code)),
        "scales": pa.list_(pa.list_(pa.float32())),
        "header": pa.string(),
        **{name: kinds[kind] for name, kind in carried.items()},
    }
    return pa.schema(list(columns.items()), metadata={"blazen_codec": VERSION})


def _packing(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the compression settings for rows.

    Readers refuse small data that claims to be large. Rows with very many values are therefore stored uncompressed.
    """
    if any(row.values > parquet_pages.MOST_VALUES for row in rows):
        return {"compression": "none", "use_dictionary": False}
    return {"compression": "zstd"}


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Split rows into row groups with at most as many values as readers accept; a larger row gets its own group."""
    together, values = list[Row](), 0
    for row in rows:
        own = row.values
        if together and (len(together) == TOGETHER or values + own > parquet_pages.MOST_VALUES):
            yield together
            together, values = [], 0
        together.append(row)
        values += own
    if together:
        yield together


def python_value(scalar: Any) -> Any:
    """Convert a value of a column to Python; lists of lists of numbers become lists of arrays."""
    if not arrow().types.is_list(scalar.type) or scalar.values is None:
        return scalar.as_py()
    values = scalar.values
    if not hasattr(values, "flatten") or not arrow().types.is_primitive(values.flatten().type):
        parquet_pages.check_row(values)
        return scalar.as_py()
    if len(values) > MOST_LISTS:
        raise CorruptFile(f"a row has {len(values)} lists of codes; at most {MOST_LISTS} are read")
    return [np.asarray(values[number].values) for number in range(len(values))]


def data_of(tar: BinaryIO, member: tar_member.Member) -> bytes:
    """Return the content of a member of an open tar."""
    tar.seek(member.offset)
    return tar.read(member.size)


def facts_of(members: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Parse the JSON of a recording in a tar; raise `CorruptFile` if it is invalid."""
    try:
        return parse_object(members[".json"], lenient=True)
    except NotJson as error:
        raise CorruptFile(f"{where} is damaged: it {error}") from error


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Convert errors of libraries to `CorruptFile`; refuse anything but regular files."""
    existing(path)
    try:
        yield
    except CodecError:
        raise
    except UNREADABLE as error:
        raise CorruptFile(f"{path} cannot be read: {reason(error)}") from error
