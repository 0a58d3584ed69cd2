"""Which recordings go into which shard, worked out once and written down, a shard's worth in memory at a time."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptFile, InvalidInput, reason
from ..files import replacing
from .items import Item

ITEMS, CUTS = "items.jsonl", "plan.json"
SHARDS = 128
"""That there are about, unless they would be longer or shorter than these: enough that workers end together."""
SHORTEST, LONGEST = 60.0, 3600.0
"""Seconds of audio in a shard."""
MOST_ITEMS = 10_000
READERS = 16
"""Headers that are read at a time; storage far away answers late, but many at once."""


@dataclass(frozen=True)
class Cut:
    """A shard in the file of items.

    Attributes:
        offset: Of its first line, in bytes.
        items: There are.
        seconds: Of audio, as far as headers say.
    """

    offset: int
    items: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The shards of a dataset.

    Attributes:
        folder: That it is written in.
        root: What the paths of items are relative to.
        digest: Of the items; those of another input have another.
    """

    folder: Path
    root: Path
    digest: str
    cuts: tuple[Cut, ...]

    def items(self, number: int) -> Iterator[Item]:
        """Of a shard, in order."""
        cut = self.cuts[number]
        with (self.folder / ITEMS).open("rb") as lines:
            lines.seek(cut.offset)
            for _ in range(cut.items):
                yield _item(lines.readline())


def make(
    folder: Path, root: Path, items: Iterable[Item], *, shard_seconds: float | None, planned: Callable[[int], object]
) -> Plan:
    """Plans, and writes the plan into a folder, whole or not at all.

    Args:
        shard_seconds: Of audio in a shard; about a 128th of all, but a minute at least and an hour at most, if not given.
        planned: Told after each item how many there are.

    Raises:
        InvalidInput: Two items have the same id.
    """
    digest, total = hashlib.sha256(), 0.0
    with replacing(folder / ITEMS) as temporary:
        with temporary.open("wb") as lines:
            for number, (item, seconds) in enumerate(_measured(items, root), 1):
                digest.update(_key(item))
                lines.write(json.dumps([*_values(item), seconds]).encode() + b"\n")
                total += seconds
                planned(number)
        check_distinct(lambda: (item.id for item in _read(temporary)), folder, "recordings")
    target = shard_seconds or min(LONGEST, max(SHORTEST, total / SHARDS))
    cuts = tuple(_cut(folder / ITEMS, target))
    with replacing(folder / CUTS) as temporary:
        written = {"root": str(root), "digest": digest.hexdigest(), "cuts": [(c.offset, c.items, c.seconds) for c in cuts]}
        temporary.write_text(json.dumps(written))
    return Plan(folder, root, digest.hexdigest(), cuts)


def read(folder: Path) -> Plan | None:
    """The plan in a folder, `None` if there is none.

    Raises:
        CorruptFile: It cannot be read.
    """
    path = folder / CUTS
    if not path.exists():
        return None
    try:
        written = json.loads(path.read_text())
        return Plan(folder, Path(written["root"]), written["digest"], tuple(Cut(*cut) for cut in written["cuts"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} cannot be read: {reason(error)}; begin again in another folder") from error


def digest_of(items: Iterable[Item]) -> str:
    """What `Plan.digest` would be."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(_key(item))
    return digest.hexdigest()


def check_distinct(ids: Callable[[], Iterator[str]], scratch: Path, what: str) -> None:
    """Raises `InvalidInput` if an id comes twice. Hashes are sorted in a file, so that memory does not grow with their number.

    Args:
        ids: Gives them; called again to find the culprit.
        scratch: A folder for the file.
    """
    with tempfile.NamedTemporaryFile(prefix=".", dir=scratch) as file:
        for identity in ids():
            file.write(_hash(identity).to_bytes(8, "little"))
        file.flush()
        hashes = np.memmap(file.name, np.uint64, "r+") if file.tell() else np.zeros(0, np.uint64)
        hashes.sort()
        twice = {int(value) for value in hashes[1:][hashes[1:] == hashes[:-1]][:1000]}
        del hashes
    if twice:
        seen: set[str] = set()
        for identity in ids():
            if _hash(identity) in twice:
                if identity in seen:
                    raise InvalidInput(f"two {what} have the id {identity!r}; ids must differ")
                seen.add(identity)


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _measured(items: Iterable[Item], root: Path) -> Iterator[tuple[Item, float]]:
    """Items with their seconds, in order, headers read some at a time."""
    waiting: deque[tuple[Item, Future[float]]] = deque()
    with ThreadPoolExecutor(READERS) as readers:
        for item in items:
            waiting.append((item, readers.submit(item.seconds, root)))
            if len(waiting) >= 4 * READERS:
                first, seconds = waiting.popleft()
                yield first, seconds.result()
        while waiting:
            first, seconds = waiting.popleft()
            yield first, seconds.result()


def _cut(path: Path, target: float) -> Iterator[Cut]:
    """Shards of neighbours, each of at most so many seconds, or of a single item."""
    begin = at = count = 0
    seconds = 0.0
    with path.open("rb") as lines:
        for line in lines:
            own = float(json.loads(line)[-1])
            if count and (seconds + own > target or count >= MOST_ITEMS):
                yield Cut(begin, count, round(seconds, 3))
                begin, count, seconds = at, 0, 0.0
            at, count, seconds = at + len(line), count + 1, seconds + own
    yield Cut(begin, count, round(seconds, 3))


def _values(item: Item) -> list[Any]:
    return list(asdict(item).values())


def _key(item: Item) -> bytes:
    return json.dumps(_values(item)).encode()


def _item(line: bytes) -> Item:
    try:
        return Item(*json.loads(line)[: len(fields(Item))])
    except (ValueError, TypeError) as error:
        raise CorruptFile(f"the plan is damaged: {reason(error)}; begin again in another folder") from error


def _read(path: Path) -> Iterator[Item]:
    with path.open("rb") as lines:
        yield from map(_item, lines)
