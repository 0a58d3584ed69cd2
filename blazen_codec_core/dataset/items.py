"""Which recordings there are to tokenise: in a folder, in tars, or in a list."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from .. import files
from ..audio import SUFFIXES, AudioReader
from ..errors import CodecError, CorruptFile, InvalidInput, reason
from . import shards

TAR, LISTS = frozenset({".tar"}), frozenset({".csv", ".json", ".jsonl", ".ndjson", ".parquet"})
PATHS = ("path", "audio_filepath", "audio_path", "file", "file_path", "filename")
"""What the column of paths in a list may be called, the first that there is."""


@dataclass(frozen=True)
class Item:
    """A recording, or a part of one.

    Attributes:
        id: Unlike every other's in its input.
        path: Of the file, or of the tar that holds it.
        member: Its name in the tar.
        offset: Where it begins in the tar, in bytes,
        size: and how long it is.
        start: Of the part, in seconds.
        end: Of the part, in seconds; the recording's if `None`.
        lasts: Seconds of audio, as a list says; `None` if it does not.
    """

    id: str
    path: str
    member: str | None = None
    offset: int = 0
    size: int = 0
    start: float = 0.0
    end: float | None = None
    lasts: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        return _printable(f"{self.path}:{self.member}" if self.member else self.path)

    def open(self, root: Path) -> AudioReader:
        """The audio; raises as `AudioReader` does.

        Args:
            root: What `path` is relative to.
        """
        path = root / self.path
        if self.member is None:
            return AudioReader(path, start=self.start, end=self.end)
        try:
            content = io.BufferedReader(_Window(path.open("rb"), self.offset, self.size))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
        return _Member(f"{path}:{self.member}", content=content, start=self.start, end=self.end)

    def seconds(self, root: Path) -> float:
        """How long it is, as its list or the file's header says; 0 where it cannot be read."""
        if self.lasts is not None:
            return self.lasts
        try:
            with self.open(root) as reader:
                return (reader.num_samples or 0) / reader.sample_rate
        except CodecError:
            return 0.0


class _Member(AudioReader):
    """An `AudioReader` that closes what it was given."""

    def __init__(self, path: str, *, content: BinaryIO, start: float, end: float | None) -> None:
        self._content = content
        try:
            super().__init__(path, content=content, start=start, end=end)
        except BaseException:
            content.close()
            raise

    def close(self) -> None:
        super().close()
        self._content.close()


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + to)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def find(source: str | PathLike[str]) -> tuple[Path, Iterator[Item]]:
    """What there is at a place, in an order that depends on names alone, and what the items' paths are relative to.

    Args:
        source: A folder, whose audio files, and tars of audio files, are found in it and below; such a tar; an audio file; or a
            list, in JSON lines, CSV or Parquet, with a column of paths (`path`, `audio_filepath`, `file` …, relative to it),
            and if need be `id`, and `start` with `end` or `duration`, in seconds.

    Raises:
        InvalidInput: There is nothing, or a list that is none.
        CorruptFile: It cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return path, _in_folder(path)
    if not path.is_file():
        raise InvalidInput(f"{path} is neither a folder, a tar of audio, nor a list")
    suffix = path.suffix.lower()
    if suffix in TAR:
        return path.parent, _in_tar(path, path.name, "")
    if suffix in LISTS:
        return path.parent, _in_list(path)
    if suffix in SUFFIXES:
        return path.parent, iter([Item(path.name, path.name)])
    raise InvalidInput(f"{path}: a list is called {', '.join(sorted(LISTS))}, a tar .tar")


def _in_folder(folder: Path) -> Iterator[Item]:
    found = False
    for name in files.walk(folder, SUFFIXES | TAR):
        found = True
        if Path(name).suffix.lower() in TAR:
            yield from _in_tar(folder / name, name, f"{name}/")
        else:
            yield Item(_printable(name), name)
    if not found:
        raise InvalidInput(f"there is no audio in {folder}: files named {', '.join(sorted(SUFFIXES))}, or tars of them")


def _printable(name: str) -> str:
    """A file name in which bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _in_tar(path: Path, name: str, prefix: str) -> Iterator[Item]:
    found = False
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isreg() and Path(member.name).suffix.lower() in SUFFIXES:
                    found = True
                    yield Item(_printable(f"{prefix}{member.name}"), name, member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise CorruptFile(f"{path} cannot be read as a tar: {reason(error)}") from error
    if not found:
        raise InvalidInput(f"there is no audio in {path}: members named {', '.join(sorted(SUFFIXES))}")


def _in_list(path: Path) -> Iterator[Item]:
    column, found = None, False
    for number, row in enumerate(_rows(path), 1):
        where, found = f"{path}, row {number}", True
        if isinstance(row, dict):
            column = column or next((name for name in PATHS if row.get(name)), None)
        name = row.get(column) if isinstance(row, dict) and column else None
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"{where}: there is no path; the column of paths is called {', '.join(PATHS)}")
        start, end, lasts = (_seconds(row, key, where) for key in ("start", "end", "duration"))
        if start is not None and end is None and lasts is not None:
            end = start + lasts
        if start is not None or end is not None:
            if end is not None and end <= (start or 0.0):
                raise InvalidInput(f"{where}: it ends at {end:g} s, before it starts")
            lasts = None if end is None else end - (start or 0.0)
        part = "" if start is None and end is None else f"#{start or 0:g}-{'' if end is None else f'{end:g}'}"
        identity = row.get("id")
        known = identity is not None and identity != ""
        yield Item(str(identity) if known else f"{name}{part}", name, start=start or 0.0, end=end, lasts=lasts)
    if not found:
        raise InvalidInput(f"{path} lists nothing")


def _seconds(row: dict[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidInput(f"{where}: {key} is in seconds, not {value!r}")
    return seconds


def _rows(path: Path) -> Iterator[Any]:
    """Of a list, whatever it is written in."""
    try:
        if path.suffix.lower() == ".parquet":
            yield from shards.plain(path)
        elif path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as text:
                yield from csv.DictReader(text)
        else:
            with path.open(encoding="utf-8-sig") as text:
                yield from (json.loads(line) for line in text if line.strip())
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise CorruptFile(f"{path} cannot be read as a list of recordings: {reason(error)}") from error
