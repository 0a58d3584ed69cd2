"""What a run keeps beside its shards, in `.run`: what was asked for, the plan, and a journal of what is done."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptFile, EngineNotAvailable, InvalidInput, reason
from ..files import replacing
from . import shards

FOLDER, ASKED, JOURNAL, FAILURES, LOCK = ".run", "dataset.json", "journal.jsonl", "failures.jsonl", "lock"


@dataclass(frozen=True)
class Failure:
    """A recording that could not be tokenised, and why."""

    id: str
    path: str
    error: str


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        rows: Recordings in it,
        seconds: and of audio.
        took: Seconds of work.
        used: Which entries of each codebook were chosen, packed; see `Usage`.
        remarked: Rows with remarks.
    """

    shard: int
    rows: int
    seconds: float
    took: float
    failures: tuple[Failure, ...] = ()
    used: tuple[str, ...] = ()
    remarked: int = 0

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Done:
        """From what `dataclasses.asdict` made of it."""
        failures = tuple(Failure(**failure) for failure in written["failures"])
        return cls(**{**written, "failures": failures, "used": tuple(written["used"])})


class Usage:
    """Which entries of each codebook were ever chosen."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self._used: list[NDArray[np.bool_]] = []

    def add(self, codes: Sequence[NDArray[np.int32]]) -> None:
        """Indices, an array a codebook."""
        self._grow(len(codes))
        for used, code in zip(self._used, codes, strict=False):
            used[code.reshape(-1)] = True

    def add_packed(self, packed: Sequence[str]) -> None:
        self._grow(len(packed))
        for book, text in enumerate(packed):
            bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
            self._used[book] |= np.unpackbits(bits, count=self.entries).astype(bool)

    @property
    def packed(self) -> tuple[str, ...]:
        """As a line of the journal has it."""
        return tuple(base64.b64encode(zlib.compress(np.packbits(used).tobytes())).decode() for used in self._used)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the entries, a codebook."""
        return tuple(float(used.mean()) for used in self._used)

    def _grow(self, books: int) -> None:
        self._used += [np.zeros(self.entries, np.bool_) for _ in range(books - len(self._used))]


@dataclass
class Totals:
    """All that a dataset holds so far; `seconds` are of audio."""

    usage: Usage
    rows: int = 0
    failed: int = 0
    remarked: int = 0
    seconds: float = 0.0
    shards: set[int] = field(default_factory=set)

    def add(self, done: Done) -> None:
        self.shards.add(done.shard)
        self.rows += done.rows
        self.failed += len(done.failures)
        self.remarked += done.remarked
        self.seconds += done.seconds
        self.usage.add_packed(done.used)


class Books:
    """The folder `.run` of a dataset, while a run has it to itself; made by `open_books`."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER

    def agrees(self, asked: Mapping[str, Any]) -> bool:
        """Whether a dataset was begun, and so; `False` if none was.

        Raises:
            InvalidInput: It was begun otherwise; the message says what differs.
            CorruptFile: What was noted cannot be read.
        """
        path = self.folder / ASKED
        if not path.exists():
            return False
        try:
            noted = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CorruptFile(f"{path} cannot be read: {reason(error)}") from error
        if "version" in asked and noted.get("version") != asked["version"]:
            raise InvalidInput(
                f"{self.folder.parent} was begun by another version of blazen-codec, whose runs are not gone on with: finish it "
                "with that version, or write elsewhere"
            )
        names = [*noted, *(name for name in asked if name not in noted)]
        apart = [
            f"{name} was {noted.get(name)!r}, is {asked.get(name)!r}" for name in names if noted.get(name) != asked.get(name)
        ]
        if apart:
            raise InvalidInput(
                f"{self.folder.parent} holds a dataset that was begun otherwise: {'; '.join(apart)}. "
                "Ask for the same, or write elsewhere"
            )
        return True

    def note_asked(self, asked: Mapping[str, Any]) -> None:
        """Notes what a dataset is made of, once it is planned."""
        with replacing(self.folder / ASKED) as temporary:
            temporary.write_text(json.dumps(dict(asked), indent=2) + "\n")

    def journal(self) -> Iterator[Done]:
        """The shards that are done, each as its latest line says.

        Raises:
            CorruptFile: It cannot be read.
        """
        latest = {done.shard: number for number, done in self._lines()}
        yield from (done for number, done in self._lines() if latest[done.shard] == number)

    def _lines(self) -> Iterator[tuple[int, Done]]:
        path = self.folder / JOURNAL
        if not path.exists():
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # was being written when a run died
                    return
                try:
                    yield number, Done.of(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise CorruptFile(f"{path}, line {number}, cannot be read: {reason(error)}") from error

    def note(self, done: Done) -> None:
        """Adds a line to the journal, for good. Only once the shard itself is."""
        path = self.folder / JOURNAL
        with path.open("ab") as lines:
            lines.write(json.dumps(asdict(done)).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())

    def tidy(self) -> None:
        """Removes what a run that was killed left half-written: temporary files, and the end of the journal."""
        for path in (*self.folder.glob(".*"), *self.folder.parent.glob(f".{shards.PREFIX}*")):
            path.unlink()
        path, whole = self.folder / JOURNAL, 0
        if path.exists():
            with path.open("rb") as lines:
                whole = sum(len(line) for line in lines if line.endswith(b"\n"))
            os.truncate(path, whole)

    def write_failures(self) -> Path:
        """Lists the recordings that failed, a line each, out of the journal."""
        path = self.folder / FAILURES
        with replacing(path) as temporary, temporary.open("w") as lines:
            for _, failures in sorted((done.shard, done.failures) for done in self.journal() if done.failures):
                lines.writelines(json.dumps(asdict(failure)) + "\n" for failure in failures)
        return path


@contextmanager
def open_books(out: Path) -> Iterator[Books]:
    """The books of a dataset, which no other run can have meanwhile.

    Raises:
        InvalidInput: Another one has, or the folder cannot be written, or holds something else.
        EngineNotAvailable: filelock is not installed.
    """
    try:
        import filelock
    except ImportError as error:
        raise EngineNotAvailable("datasets need filelock: pip install 'blazen-codec-core[dataset]'") from error
    folder, new = out / FOLDER, not out.exists()
    lock = filelock.FileLock(folder / LOCK)
    try:
        if not new and not folder.exists() and any(out.iterdir()):
            raise InvalidInput(f"{out} is not empty, and holds no dataset that could be gone on with")
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InvalidInput(f"another run is writing {out}") from error
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror or error}") from error
    try:
        yield Books(out)
    finally:
        if not (folder / ASKED).exists():  # nothing came of it
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            if new:
                out.rmdir()
        lock.release()
