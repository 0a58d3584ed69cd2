"""Shards of a dataset: files of rows, in Parquet or as tars of one token container a recording."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import container
from ..errors import CorruptFile, EngineNotAvailable, InvalidInput, reason
from ..files import replacing
from ..specs import CodecSpec
from .rows import LARGEST_SHORT, VERSION, Row, tokens_of

TOGETHER = 256
"""Rows of a row group of Parquet."""
PREFIX = "tokens-"
"""Of the names of shards."""
NOTHING: Mapping[str, str] = {}
AT_ONCE = 16
"""Rows that are in memory while a shard is read."""


class ShardFormat(ABC):
    """A kind of file for shards.

    Attributes:
        suffix: Of its files.
    """

    suffix: str

    def check_available(self) -> None:  # noqa: B027 most need nothing
        """Raises `EngineNotAvailable` where a package is missing."""

    @abstractmethod
    def write(self, path: Path, spec: CodecSpec, rows: Iterable[Row], carried: Mapping[str, str] = NOTHING) -> None:
        """Writes a shard, whole or not at all; the same rows give the same bytes.

        Args:
            carried: The kinds of the columns that the rows carry along, by name; see `carried.Column`.

        Raises:
            InvalidInput: It cannot be written.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """The rows, a few in memory at a time.

        Raises:
            CorruptFile: It is none, or is damaged.
        """

    @abstractmethod
    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        """The id of each row, and how many seconds it is, without its tokens."""


class ParquetShards(ShardFormat):
    """A row a row; see `rows`."""

    suffix = ".parquet"

    def check_available(self) -> None:
        parquet()

    def write(self, path: Path, spec: CodecSpec, rows: Iterable[Row], carried: Mapping[str, str] = NOTHING) -> None:
        columns, left = schema(spec, carried), iter(rows)
        with replacing(path) as temporary, parquet().ParquetWriter(temporary, columns, compression="zstd") as writer:
            while together := list(itertools.islice(left, TOGETHER)):
                writer.write_table(arrow().Table.from_pylist([row.columns for row in together], schema=columns))

    def read(self, path: Path) -> Iterator[Row]:
        with damage(path), parquet().ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                for number in range(batch.num_rows):
                    columns = {name: _value(batch.column(name)[number]) for name in batch.schema.names}
                    yield Row.of(columns, tokens_of(columns, str(path)), str(path))

    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        with damage(path), parquet().ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", "duration"]):
                yield from zip(batch.column("id").to_pylist(), batch.column("duration").to_pylist(), strict=True)


class TarShards(ShardFormat):
    """Two members a recording, `NUMBER.tokens`, a container, and `NUMBER.json`, the other columns, as WebDataset has them."""

    suffix = ".tar"

    def write(self, path: Path, spec: CodecSpec, rows: Iterable[Row], carried: Mapping[str, str] = NOTHING) -> None:
        with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for number, row in enumerate(rows):
                facts = json.dumps(row.facts, ensure_ascii=False).encode()
                for suffix, data in ((container.SUFFIX, container.contents(row.tokens)), (".json", facts)):
                    member = tarfile.TarInfo(f"{number:06d}{suffix}")  # of no time and nobody
                    member.size, member.mode = len(data), 0o644
                    tar.addfile(member, io.BytesIO(data))

    def read(self, path: Path) -> Iterator[Row]:
        for name, members in self._samples(path):
            where = f"{path}:{name}"
            yield Row.of(_facts(members, where), container.from_bytes(members[container.SUFFIX], where), where)

    def listing(self, path: Path) -> Iterator[tuple[str, float]]:
        for name, members in self._samples(path):
            facts = _facts(members, f"{path}:{name}")
            yield facts["id"], facts["duration"]

    def _samples(self, path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
        with damage(path), tarfile.open(path, "r:") as tar:
            members: dict[str, bytes] = {}
            for member in tar:
                stem, suffix = Path(member.name).stem, Path(member.name).suffix
                content = tar.extractfile(member)
                members[suffix] = content.read() if content else b""
                if members.keys() >= {container.SUFFIX, ".json"}:
                    yield stem, members
                    members = {}
                tar.members = []  # type: ignore[attr-defined]  # which would all be remembered
            if members:
                raise CorruptFile(f"{path} breaks off")


FORMATS: dict[str, ShardFormat] = {"parquet": ParquetShards(), "tar": TarShards()}


def name_of(number: int, count: int, suffix: str) -> str:
    """Of a shard's file."""
    return f"{PREFIX}{number:05d}-of-{count:05d}{suffix}"


def format_of(path: Path) -> ShardFormat:
    """By the suffix of a shard; raises `InvalidInput` where none has it."""
    for kind in FORMATS.values():
        if path.suffix == kind.suffix:
            return kind
    raise InvalidInput(f"{path} is no shard of tokens; they are called {', '.join(kind.suffix for kind in FORMATS.values())}")


def files(path: str | PathLike[str]) -> list[Path]:
    """The shards of a dataset, in order; a single one is one.

    Raises:
        InvalidInput: There are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(file for kind in FORMATS.values() for file in path.glob(f"*{kind.suffix}") if not file.name.startswith("."))
    if not found:
        raise InvalidInput(f"{path} holds no shards of tokens (*{', *'.join(kind.suffix for kind in FORMATS.values())})")
    return found


def schema(spec: CodecSpec, carried: Mapping[str, str] = NOTHING) -> Any:
    """The columns of `rows`, for the tokens of a model, and then those that are carried along."""
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


def parquet() -> Any:
    """`pyarrow.parquet`; raises `EngineNotAvailable` where it is not installed."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet


def arrow() -> Any:
    """`pyarrow`; raises `EngineNotAvailable` where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise EngineNotAvailable("Parquet needs pyarrow: pip install 'blazen-codec-core[dataset]'") from error
    return pyarrow


def _value(scalar: Any) -> Any:
    """Of a column, in Python; lists of lists of numbers as arrays."""
    if not hasattr(scalar, "values") or scalar.values is None:
        return scalar.as_py()
    values = scalar.values
    if not arrow().types.is_list(values.type):
        return scalar.as_py()
    return [np.asarray(values[number].values) for number in range(len(values))]


def _facts(members: dict[str, bytes], where: str) -> dict[str, Any]:
    try:
        facts = json.loads(members[".json"])
        return {**facts, "id": str(facts["id"]), "duration": float(facts["duration"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{where} is damaged: {reason(error)}") from error


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Says of what a library cannot read that it is damaged."""
    try:
        yield
    except (CorruptFile, EngineNotAvailable):
        raise
    except (ValueError, LookupError, TypeError, NotImplementedError, MemoryError, OSError, tarfile.TarError) as error:
        raise CorruptFile(f"{path} cannot be read: {reason(error)}") from error
