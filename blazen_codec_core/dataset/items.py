"""Recordings to tokenise, and what was listed as one and cannot be."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..audio import AudioReader, Truncated
from ..errors import CodecError, CorruptFile, InvalidInput, reason
from ..files import opened
from ..validation import check_count
from .parquet_cells import Cell, ParquetCells
from .tar_member import Window

BYTES_A_SECOND = 16_000
"""Of compressed speech: what the length of a recording is estimated from where its container does not say it."""


@dataclass(frozen=True)
class AudioItem:
    """A recording, or a part of one.

    Attributes:
        id: Unlike every other's in its input.
        path: Of the file, or of the tar or Parquet file that holds it.
        member: Its name in the tar or Parquet file.
        offset: Where it begins in the tar, in bytes.
        size: How long it is in the tar or, on average, in the Parquet file, in bytes.
        start: Of the part, in seconds.
        end: Of the part, in seconds; the recording's if `None`.
        lasts: Seconds of audio, as a list says; `None` if it does not.
        cell: Where it is in the Parquet file.
        carried: Columns of the list that travel along.
    """

    id: str
    path: str
    member: str | None = None
    offset: int = 0
    size: int = 0
    start: float = 0.0
    end: float | None = None
    lasts: float | None = None
    cell: Cell | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return printable(f"{self.path}:{self.member}" if self.member else self.path)

    def open(self, root: Path, cells: ParquetCells | None = None, truncated: Truncated = "refuse") -> AudioReader:
        """Open the audio; raises as `AudioReader` does.

        Args:
            root: What `path` is relative to.
            cells: Reader of Parquet files, for recordings that are read one after the other.
            truncated: What becomes of recordings that are shorter than they say.
        """
        path = root / self.path
        part: dict[str, Any] = {"start": self.start, "end": self.end, "truncated": truncated}
        if self.cell is not None:
            content = (cells or ParquetCells()).read(path, self.cell)
            if content is None and self.member:
                return AudioReader(root / self.member, **part)
            if content is None:
                raise InvalidInput(f"{self.name} is empty: there are neither bytes nor a path")
            return _Content(self.name, io.BytesIO(content), part)
        if self.member is None:
            return AudioReader(path, **part)
        try:
            window = Window(opened(path), self.offset, self.size)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
        return _Content(f"{path}:{self.member}", io.BufferedReader(window), part)

    def seconds(self, root: Path) -> float | None:
        """Return how long it is, as its list or header says; 0 where it cannot be read, `None` where neither says it."""
        if self.lasts is not None:
            return self.lasts
        if self.cell is not None:  # its bytes are many, and are read once
            return None
        try:
            with self.open(root) as reader:
                return None if reader.num_samples is None else reader.num_samples / reader.sample_rate
        except Exception:  # said of the recording when it is its turn
            return 0.0

    def guessed_seconds(self, root: Path) -> float:
        """Return how long it may be, from its size."""
        if self.member is not None or self.cell is not None:
            return self.size / BYTES_A_SECOND
        try:
            return os.path.getsize(root / self.path) / BYTES_A_SECOND
        except (OSError, ValueError):
            return 0.0

    @property
    def line(self) -> list[Any]:
        """Fields of the item, as a plan lists them."""
        return [
            self.id, self.path, self.member, self.offset, self.size, self.start, self.end, self.lasts,
            self.cell and list(self.cell), dict(self.carried),
        ]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Item of a list that cannot be a recording, or cannot be looked into.

    Attributes:
        id: Of the recording, or where it was listed.
        path: For people.
        error: What is wrong, with the type of the error.
    """

    id: str
    path: str
    error: str

    @classmethod
    def of(cls, id: str, path: str, error: Exception) -> Fault:
        """Make a fault from the error that occurred."""
        return cls(printable(id), printable(path), described(error))

    @property
    def line(self) -> list[Any]:
        """Fields of the item, as a plan lists them."""
        return [self.id, self.path, self.error]


Entry = AudioItem | Fault


def entry_of(line: list[Any]) -> Entry:
    """Return the entry that a line of a plan is of.

    Raises:
        CorruptFile: It is of none.
    """
    try:
        if len(line) == 3:
            return Fault(*(_text(value) for value in line))
        id, path, member, offset, size, start, end, lasts, cell, carried = line
        return AudioItem(
            _text(id), _text(path), member if member is None else _text(member), check_count("offset", offset, 0),
            check_count("size", size, 0), _time(start), end if end is None else _time(end),
            lasts if lasts is None else _time(lasts),            cell if cell is None else _cell(cell), dict(carried),
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptFile(f"the plan is damaged: {reason(error)}; begin again in another folder") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _time(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError(f"{value!r} is no time")
    return value


def _cell(value: Any) -> Cell:
    column, group, row = value
    return Cell(_text(column), check_count("group", group, 0), check_count("row", row, 0))


def encoded(entry: Entry) -> bytes:
    """Return what tells an entry from others, for digests."""
    return json.dumps(entry.line).encode()


def described(error: BaseException) -> str:
    """Return the type of an error and what it says, for a line of failures."""
    said = str(error) if isinstance(error, CodecError) else reason(error)
    kind = type(error).__name__
    return printable(kind if said == kind else f"{kind}: {said}")


def printable(name: str) -> str:
    """Return a file name in which bytes that are not UTF-8 are written out."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates, such as of a broken JSON escape
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


class _Content(AudioReader):
    """An `AudioReader` that closes what it was given."""

    def __init__(self, path: str, content: BinaryIO, part: dict[str, Any]) -> None:
        self._content = content
        try:
            super().__init__(path, content=content, **part)
        except BaseException:
            content.close()
            raise

    def close(self) -> None:
        super().close()
        self._content.close()
