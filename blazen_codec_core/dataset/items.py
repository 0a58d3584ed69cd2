"""Items of a dataset: recordings to tokenize, and faults for entries that cannot be."""

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
"""Bytes per second of compressed speech, for estimating a duration that the container does not state."""


@dataclass(frozen=True)
class AudioItem:
    """A recording, or a part of one.

    Attributes:
        id: Identifier, unique in the input.
        path: Path of the file, or of the tar or Parquet file that contains it.
        member: Name in the tar or Parquet file.
        offset: Offset in the tar in bytes.
        size: Size in bytes in the tar; the average size of a cell in a Parquet file.
        start: Start of the part in seconds.
        end: End of the part in seconds; `None` for the end of the recording.
        lasts: Duration in seconds according to the list; `None` if not stated.
        cell: Location in the Parquet file.
        carried: Values of the carried columns.
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
        """Display name."""
        return printable(f"{self.path}:{self.member}" if self.member else self.path)

    def open(self, root: Path, cells: ParquetCells | None = None, truncated: Truncated = "refuse") -> AudioReader:
        """Open the audio; raise the same errors as `AudioReader`.

        Args:
            root: Base folder of `path`.
            cells: Reader to reuse for consecutive cells of a Parquet file.
            truncated: Policy for files shorter than their header says.
        """
        path = root / self.path
        part: dict[str, Any] = {"start": self.start, "end": self.end, "truncated": truncated}
        if self.cell is not None:
            content = (cells or ParquetCells()).read(path, self.cell)
            if content is None and self.member:
                return AudioReader(root / self.member, **part)
            if content is None:
                raise InvalidInput(f"{self.name} is empty: it has neither bytes nor a path")
            return _Content(self.name, io.BytesIO(content), part)
        if self.member is None:
            return AudioReader(path, **part)
        try:
            window = Window(opened(path), self.offset, self.size)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
        return _Content(f"{path}:{self.member}", io.BufferedReader(window), part)

    def seconds(self, root: Path) -> float | None:
        """Return the duration from the list or header; 0 if the file cannot be read, `None` if neither states it."""
        if self.lasts is not None:
            return self.lasts
        if self.cell is not None:  # embedded audio is large and is read only once
            return None
        try:
            with self.open(root) as reader:
                return None if reader.num_samples is None else reader.num_samples / reader.sample_rate
        except Exception:  # reported when the recording is processed
            return 0.0

    def guessed_seconds(self, root: Path) -> float:
        """Estimate the duration in seconds from the file size."""
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
    """An entry that is not a recording or cannot be read.

    Attributes:
        id: Id of the recording, or its position in the list.
        path: Display path.
        error: Type and message of the error.
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
    """Parse a line of a plan.

    Raises:
        CorruptFile: The line is invalid.
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
        raise CorruptFile(f"the plan is damaged: {reason(error)}. Start again in another folder") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _time(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError(f"{value!r} is not a time")
    return value


def _cell(value: Any) -> Cell:
    column, group, row = value
    return Cell(_text(column), check_count("group", group, 0), check_count("row", row, 0))


def encoded(entry: Entry) -> bytes:
    """Serialize an entry for digests."""
    return json.dumps(entry.line).encode()


def described(error: BaseException) -> str:
    """Format an error as `Type: message`, for a line of failures."""
    said = str(error) if isinstance(error, CodecError) else reason(error)
    kind = type(error).__name__
    return printable(kind if said == kind else f"{kind}: {said}")


def printable(name: str) -> str:
    """Escape bytes of a file name that are not UTF-8."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates, such as a broken JSON escape
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


class _Content(AudioReader):
    """An `AudioReader` that closes its input file."""

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
