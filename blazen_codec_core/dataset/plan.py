"""Assignment of recordings to shards. The plan is made once and stored; reading holds one shard's items in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from ..errors import CorruptFile, InvalidInput, reason
from ..files import opened, replacing
from ..foreign_json import NotJson, parse
from .carried import Column, Survey, plain, stored
from .ids import Ids
from .items import AudioItem, Entry, Fault, encoded, entry_of
from .seals import LARGEST, sealed, unsealed
from .seals import digest_of as file_digest
from .sources import Source

ITEMS, CUTS = "items.jsonl", "plan.json"
SHARDS = 128
"""Target number of shards, within the limits below; enough that workers finish at about the same time."""
SHORTEST, LONGEST = 60.0, 3600.0
"""Limits of the work in a shard, in seconds."""
SECONDS_A_FILE = 0.25
"""Overhead per recording (opening, starting the encoder, writing the row), in equivalent seconds of audio."""
ELSEWHERE = "start again in another folder"
MOST_ITEMS = 1_000
READERS = 16
"""Number of headers read concurrently; remote storage has high latency but serves many requests at once."""


@dataclass(frozen=True)
class ShardRange:
    """Range of a shard in the file of items.

    Attributes:
        offset: Offset of the first line in bytes.
        items: Number of items.
        seconds: Duration of the audio in seconds, from headers or estimates.
    """

    offset: int
    items: int
    seconds: float

    @property
    def work(self) -> float:
        """Estimated work, in equivalent seconds of audio."""
        return self.seconds + SECONDS_A_FILE * self.items


@dataclass(frozen=True)
class Plan:
    """The shards of a dataset.

    Attributes:
        folder: Folder of the plan.
        root: Base folder of the items' paths.
        digest: Digest of the items, which identifies the input.
        columns: Carried columns.
        is_guess: Some durations were estimated from file sizes.
        content: Digest of the file of items.
    """

    folder: Path
    root: Path
    digest: str
    cuts: tuple[ShardRange, ...]
    columns: tuple[Column, ...] = ()
    is_guess: bool = False
    content: str = ""

    def check(self) -> None:
        """Raise `CorruptFile` if the file of items was changed."""
        path = self.folder / ITEMS
        try:
            same = file_digest(path) == self.content
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror or error}; {ELSEWHERE}") from error
        if not same:
            raise CorruptFile(f"{path} was changed since the run was planned; {ELSEWHERE}")

    def items(self, number: int) -> Iterator[Entry]:
        """Yield the recordings and faults of a shard, in order."""
        cut = self.cuts[number]
        path = self.folder / ITEMS
        try:
            with opened(path) as lines:
                lines.seek(cut.offset)
                for _ in range(cut.items):
                    yield _parsed(lines.readline(LARGEST))[0]
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror or error}; {ELSEWHERE}") from error


_Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class _Column:
    name: str
    stored: str
    kind: Literal["int", "float", "bool", "string"]


@dataclass(frozen=True)
class _Written:
    """Schema of `plan.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    root: str
    digest: str
    content: str
    cuts: Annotated[list[tuple[_Whole, _Whole, _Seconds]], Field(min_length=1)]
    is_guess: Annotated[bool, Field(strict=True)]
    columns: list[_Column]


_WRITTEN = TypeAdapter(_Written)


def make(
    folder: Path,
    source: Source,
    *,
    columns: Collection[str] = (),
    shard_seconds: float | None,
    planned: Callable[[int], object],
) -> Plan:
    """Make a plan and write it into a folder atomically.

    The first recording with an id is kept; later ones with the same id become faults.

    Args:
        columns: Names of the carried columns, or `all`.
        shard_seconds: Work per shard in seconds of audio, including overhead per recording. By default a 128th of the whole,
            between a minute and an hour.
        planned: Called after each item with the number of items.

    Raises:
        InvalidInput: `source` raises it, or a requested column does not exist.
    """
    root, survey = source.root.absolute(), Survey(columns, source.is_typed)
    digest, work, is_guess = hashlib.sha256(), 0.0, False
    with tempfile.TemporaryFile(prefix=".", dir=folder) as draft, Ids(folder) as ids:
        for number, (entry, seconds, guessed) in enumerate(_measured(source.entries, root), 1):
            digest.update(encoded(entry))
            if isinstance(entry, AudioItem):
                ids.add(entry.id)
                survey.add(entry.carried)
            draft.write(_line(entry, seconds))
            work, is_guess = work + seconds + SECONDS_A_FILE, is_guess or guessed
            planned(number)
        found = survey.columns(source.names) if columns else ()
        target = shard_seconds or min(LONGEST, max(SHORTEST, work / SHARDS))
        with replacing(folder / ITEMS) as temporary, temporary.open("wb") as lines:
            cuts = tuple(_written(_final(draft, ids.repeats(), found), lines, target))
            lines.flush()
            content = file_digest(temporary)
    plan = Plan(folder, root, digest.hexdigest(), cuts, found, is_guess, content)
    with replacing(folder / CUTS) as temporary:
        cut_lines = [dataclasses.astuple(cut) for cut in cuts]
        written = {"root": str(root), "digest": plan.digest, "content": content, "cuts": cut_lines, "is_guess": is_guess}
        temporary.write_bytes(sealed({**written, "columns": [asdict(column) for column in found]}))
    return plan


def read(folder: Path) -> Plan | None:
    """Read the plan in a folder; `None` if there is none.

    Raises:
        CorruptFile: The plan cannot be read.
    """
    path = folder / CUTS
    if not path.exists():
        return None
    try:
        with opened(path) as file:
            written = _WRITTEN.validate_python(unsealed(file.read()))
    except NotJson as error:
        raise CorruptFile(f"{path} cannot be read: it {error}; {ELSEWHERE}") from error
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} cannot be read: {reason(error)}; {ELSEWHERE}") from error
    columns = tuple(Column(**asdict(column)) for column in written.columns)
    cuts = tuple(ShardRange(*cut) for cut in written.cuts)
    return Plan(folder, Path(written.root), written.digest, cuts, columns, written.is_guess, written.content)


def digest_of(entries: Iterable[Entry]) -> str:
    """Compute `Plan.digest` of entries."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(encoded(_plain(entry)))
    return digest.hexdigest()


def _plain(entry: Entry) -> Entry:
    """Convert carried values to JSON scalars."""
    if isinstance(entry, Fault) or not entry.carried:
        return entry
    return dataclasses.replace(entry, carried={name: plain(value) for name, value in entry.carried.items()})


def _measured(entries: Iterable[Entry], root: Path) -> Iterator[tuple[Entry, float, bool]]:
    """Yield entries in order, with their durations and whether those are estimates; headers are read concurrently."""
    waiting: deque[tuple[Entry, tuple[float, bool] | Future[tuple[float, bool]]]] = deque()

    def first() -> tuple[Entry, float, bool]:
        entry, measured = waiting.popleft()
        return (entry, *(measured.result() if isinstance(measured, Future) else measured))

    with ThreadPoolExecutor(READERS) as readers:
        for entry in map(_plain, entries):
            if isinstance(entry, Fault):
                waiting.append((entry, (0.0, False)))
            elif entry.lasts is not None:
                waiting.append((entry, (entry.lasts, False)))
            else:
                waiting.append((entry, readers.submit(_seconds, entry, root)))
            if len(waiting) >= 4 * READERS:
                yield first()
        while waiting:
            yield first()


def _seconds(item: AudioItem, root: Path) -> tuple[float, bool]:
    seconds = item.seconds(root)
    return (item.guessed_seconds(root), True) if seconds is None else (seconds, False)


def _final(draft: IO[bytes], is_repeat: Callable[[str], bool], columns: tuple[Column, ...]) -> Iterator[tuple[Entry, float]]:
    """Yield the final entries of a draft: duplicates become faults, and carried values are converted."""
    draft.seek(0)
    for line in draft:
        entry, seconds = _parsed(line)
        if isinstance(entry, AudioItem) and is_repeat(entry.id):
            twice = InvalidInput(f"an earlier recording has the id {entry.id!r}; ids must be unique")
            yield Fault.of(entry.id, entry.name, twice), 0.0
        elif columns and isinstance(entry, AudioItem):
            yield dataclasses.replace(entry, carried=stored(columns, entry.carried)), seconds
        else:
            yield entry, seconds


def _written(entries: Iterable[tuple[Entry, float]], lines: IO[bytes], target: float) -> Iterator[ShardRange]:
    """Write entries; yield shards of consecutive entries, each with at most `target` seconds of work, or a single entry."""
    begin = at = count = 0
    seconds = 0.0
    for entry, own in entries:
        if count and (seconds + own + SECONDS_A_FILE * (count + 1) > target or count >= MOST_ITEMS):
            yield ShardRange(begin, count, round(seconds, 3))
            begin, count, seconds = at, 0, 0.0
        at += lines.write(_line(entry, own))
        count, seconds = count + 1, seconds + own
    yield ShardRange(begin, count, round(seconds, 3))


def _line(entry: Entry, seconds: float) -> bytes:
    return json.dumps([entry.line, seconds]).encode() + b"\n"


def _parsed(line: bytes) -> tuple[Entry, float]:
    try:
        values, seconds = parse(line, largest=LARGEST, most=LARGEST, lenient=True)
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(f"an entry lasts {seconds!r} s")
    except (ValueError, TypeError) as error:
        raise CorruptFile(f"the plan is damaged: {reason(error)}; {ELSEWHERE}") from error
    return entry_of(values), seconds
