"""State of a run, stored beside the shards in `.run`: the settings, the plan, and a journal of finished shards.

Only files that a run created are ever removed. Journal lines are verified by checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from ..errors import CorruptFile, InvalidInput, reason
from ..files import opened, replaced_by, replacing, unwritten
from ..foreign_json import NotJson, parse_object
from ..installation import missing
from ..validation import is_int
from . import plan, shards
from .codebook_usage import ANEW, CodebookUsage
from .destination import BOOKS
from .seals import sealed, unsealed

FOLDER, ASKED, JOURNAL, FAILURES, LOCK, MARK = BOOKS, "dataset.json", "journal.jsonl", "failures.jsonl", "lock", "made-by"
KEPT = frozenset({ASKED, JOURNAL, FAILURES, LOCK, MARK, plan.ITEMS, plan.CUTS})
"""Names of all files in the folder."""
MADE_BY = b"blazen-codec keeps here what a run over a dataset needs to be gone on with.\n"
"""Content of the marker file that identifies the folder."""
SHARD = re.compile(rf"{shards.PREFIX}\d{{5,}}-of-\d{{5,}}\.(parquet|tar)")
LONGEST_LINE = 256 << 20
"""Longest line of the journal in bytes."""
MOST_BOOKS = 1024
"""Most codebooks of a codec."""

Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Failure:
    """A recording that could not be processed, with the reason."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    path: str
    error: str


@dataclass(frozen=True)
class ShardResult:
    """Result of a shard.

    Attributes:
        shard: Shard number.
        rows: Number of recordings.
        seconds: Duration of the audio in seconds.
        took: Processing time in seconds.
        failures: Recordings that failed.
        used: Entries used per codebook, packed; see `CodebookUsage`.
        remarked: Number of rows with remarks.
        size: Size of the output in bytes.
        digest: Digest of the output.
        seen: Concatenated fingerprints of the recordings; see `fingerprints`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    shard: Whole
    rows: Whole
    seconds: Seconds
    took: Seconds
    failures: tuple[Failure, ...] = ()
    used: Annotated[tuple[str, ...], Field(max_length=MOST_BOOKS)] = ()
    remarked: Whole = 0
    size: Whole = 0
    digest: str = ""
    seen: str = ""

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> ShardResult:
        """Parse a `dataclasses.asdict` of a result; raise `ValueError` if it is invalid."""
        return _DONE.validate_python(dict(written))


_DONE = TypeAdapter(ShardResult)


@dataclass
class Totals:
    """Totals of a dataset so far; `seconds` is the duration of the audio."""

    usage: CodebookUsage
    rows: int = 0
    failed: int = 0
    remarked: int = 0
    seconds: float = 0.0
    shards: set[int] = field(default_factory=set)

    def add(self, done: ShardResult) -> None:
        self.shards.add(done.shard)
        self.rows += done.rows
        self.failed += len(done.failures)
        self.remarked += done.remarked
        self.seconds += done.seconds
        self.usage.add_packed(done.used)


class RunState:
    """The locked folder `.run` of a dataset; created by `open_run`."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        self._key = b""

    def agrees(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether a run with the same settings exists; `False` if there is no run.

        Raises:
            InvalidInput: The run has other settings, listed in the message, or its settings are missing.
            CorruptFile: The settings cannot be read.
        """
        path = self.folder / ASKED
        if not path.exists():
            journal = self.folder / JOURNAL
            if os.path.lexists(journal):
                raise InvalidInput(
                    f"{path} is missing, so {journal} cannot be verified. "
                    "Restore it, or remove the journal to make all shards again"
                )
            return False
        try:
            with opened(path) as file:
                noted = parse_object(file.read(), lenient=True)  # paths may be no Unicode
        except (OSError, NotJson) as error:
            raise CorruptFile(f"{path} cannot be read: it {reason(error)}. Choose another folder") from error
        if "version" in asked and noted.get("version") != asked["version"]:
            raise InvalidInput(
                f"{self.folder.parent} was started by another version of blazen-codec and cannot be resumed. "
                "Finish it with that version or choose another folder"
            )
        names = [*noted, *(name for name in asked if name not in noted)]
        apart = [f"{name} {noted.get(name)!r} → {asked.get(name)!r}" for name in names if noted.get(name) != asked.get(name)]
        if apart:
            raise InvalidInput(
                f"{self.folder.parent} was created with different options: {'; '.join(apart)}. "
                "Use the same options or another folder"
            )
        self._key = _key(asked)
        return True

    def note_asked(self, asked: Mapping[str, Any]) -> None:
        """Store the settings of a run, once it is planned."""
        with replacing(self.folder / ASKED) as temporary:
            temporary.write_text(json.dumps(dict(asked), indent=2) + "\n", "utf-8", newline="\n")
        self._key = _key(asked)

    def journal(self, count: int | None = None) -> Iterator[ShardResult]:
        """Yield the results of finished shards, from the latest line of each.

        Args:
            count: Number of shards, if known.

        Raises:
            CorruptFile: A line was not written by a run of this dataset. A partial last line is ignored.
        """
        latest = {done.shard: number for number, done in self._lines(count)}
        yield from (done for number, done in self._lines(count) if latest[done.shard] == number)

    def _lines(self, count: int | None) -> Iterator[tuple[int, ShardResult]]:
        path = self.folder / JOURNAL
        for number, line in enumerate(self._whole_lines(), 1):
            try:
                done = ShardResult.of(unsealed(line, self._key))
            except ValueError as error:  # NotJson is one
                why = f"it {error}" if isinstance(error, NotJson) else reason(error)
                raise CorruptFile(f"{path}, line {number}, was changed or belongs to another run: {why}. {ANEW}") from error
            if count is not None and done.shard >= count:
                raise CorruptFile(f"{path}, line {number}, names shard {done.shard} of {count}. {ANEW}")
            yield number, done

    def _whole_lines(self) -> Iterator[bytes]:
        """Yield the lines of the journal, without a partial last line."""
        path = self.folder / JOURNAL
        try:
            with opened(path) as lines:
                while (line := lines.readline(LONGEST_LINE)).endswith(b"\n"):
                    yield line
                if len(line) >= LONGEST_LINE:
                    raise CorruptFile(f"{path} has a line of more than {LONGEST_LINE >> 20} MiB. {ANEW}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror or error}. {ANEW}") from error

    def note(self, done: ShardResult) -> None:
        """Append a result to the journal and sync it. The shard must be on disk already."""
        path = self.folder / JOURNAL
        try:
            with path.open("ab") as lines:
                lines.write(sealed(asdict(done), self._key) + b"\n")
                lines.flush()
                os.fsync(lines.fileno())
        except OSError as error:
            raise unwritten(path, error) from error

    def tidy(self) -> None:
        """Remove what a killed run left unfinished: temporary files, and a partial last line of the journal."""
        for path in self.folder.glob(".*"):
            _remove_half(path, lambda whole: whole in KEPT)
        for path in self.folder.parent.glob(f".{shards.PREFIX}*"):
            _remove_half(path, lambda whole: SHARD.fullmatch(whole) is not None)
        whole = sum(map(len, self._whole_lines()))
        if (path := self.folder / JOURNAL).exists():
            os.truncate(path, whole)

    def write_failures(self) -> Path:
        """Write the failures of the journal as JSON lines."""
        path = self.folder / FAILURES
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as lines:
            for _, failures in sorted((done.shard, done.failures) for done in self.journal() if done.failures):
                lines.writelines(json.dumps(asdict(failure)) + "\n" for failure in failures)
        return path


def _key(asked: Mapping[str, Any]) -> bytes:
    """Derive the key of the journal's checksums from the settings, so that lines of another dataset are refused."""
    return hashlib.blake2b(json.dumps(dict(asked), sort_keys=True).encode(), digest_size=32).digest()


def _remove_half(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove a temporary file of `files.replacing` if its target is one of the run's files; keep links and other files."""
    whole = replaced_by(path)
    if whole is not None and is_ours(whole.name) and path.is_file() and not path.is_symlink():
        path.unlink()


def _check_ours(folder: Path) -> None:
    """Raise `InvalidInput` if the folder exists and was not created by a run."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidInput(f"{folder} is a link or a file; expected a folder. Move it away or choose another folder")
    if links := [name for name in sorted(KEPT) if (folder / name).is_symlink()]:
        raise InvalidInput(f"{folder / links[0]} is a symbolic link. Remove it or choose another folder")
    if odd := [name for name in sorted(KEPT) if os.path.lexists(folder / name) and not (folder / name).is_file()]:
        raise InvalidInput(f"{folder / odd[0]} is not a regular file. Move it away or choose another folder")
    if any(map(_is_something, folder.iterdir())) and not _is_marked(folder / MARK) and not _is_asked(folder / ASKED):
        raise InvalidInput(f"{folder} was not made by blazen-codec. Move it away or choose another folder")


def _is_something(path: Path) -> bool:
    """Tell whether a path is anything but the empty marker of a run that died while writing it."""
    return path.name != MARK or path.stat().st_size > 0


def _is_marked(path: Path) -> bool:
    try:
        with opened(path) as file:
            found = file.read(len(MADE_BY) + 1)
    except OSError:
        return False
    return found != b"" and MADE_BY.startswith(found)  # a run may die while it writes the marker


def _is_asked(path: Path) -> bool:
    """Tell whether a file has the settings of a run of an earlier version."""
    try:
        with opened(path) as file:
            noted = parse_object(file.read(), lenient=True)  # paths may be no Unicode
    except (OSError, NotJson):
        return False
    return is_int(noted.get("version")) and isinstance(noted.get("codec"), str)


@contextmanager
def open_run(out: Path) -> Iterator[RunState]:
    """Lock and yield the run state of a dataset.

    Raises:
        InvalidInput: Another run holds the lock, the folder cannot be written, or it contains something else.
        EngineNotAvailable: filelock is not installed.
    """
    try:
        import filelock
    except ImportError as error:
        raise missing("datasets need filelock", "dataset") from error
    folder = out / FOLDER
    lock = filelock.FileLock(folder / LOCK)
    try:
        new = not out.exists()
        _check_ours(folder)
        if not new and not folder.exists() and any(out.iterdir()):
            raise InvalidInput(f"{out} is not empty and is not a dataset folder (no {FOLDER}). Choose an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_marked(folder / MARK) or (folder / MARK).stat().st_size != len(MADE_BY):
            (folder / MARK).write_bytes(MADE_BY)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InvalidInput(f"another run is writing {out}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield RunState(out)
    finally:
        never_started = not (folder / ASKED).exists() and not os.path.lexists(folder / JOURNAL)
        if never_started:
            _remove_ours(folder)
        lock.release()  # on Windows this removes the lock, which cannot be removed while it is open
        if never_started:
            with suppress(OSError):
                folder.rmdir()
                if new:
                    out.rmdir()


def _remove_ours(folder: Path) -> None:
    """Remove the run's files in a folder."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        whole = replaced_by(path)
        if path.name in KEPT or (whole is not None and whole.name in KEPT):
            with suppress(OSError):
                path.unlink()
