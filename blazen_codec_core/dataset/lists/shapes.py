"""Row schemas of lists, which locate a recording or a part of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import InvalidInput
from . import columns
from .columns import PATHS, is_given, normal
from .record import FIRST, Place, Record

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


class Shape(ABC):
    """A row schema; an instance reads one list."""

    def __init__(self, carried: frozenset[str] = frozenset()) -> None:
        self._carried = carried

    @abstractmethod
    def matches(self, record: Record) -> bool:
        """Tell whether a row has this schema, even if its values are invalid."""

    @abstractmethod
    def place(self, record: Record) -> Place:
        """Return the location of a row's recording.

        Raises:
            ColumnNotUnderstood: A column makes all rows unreliable.
            InvalidInput: The row is invalid.
        """


class LhotseCut(Shape):
    """A Lhotse cut: a recording, with `start` and `duration` in seconds."""

    def matches(self, record: Record) -> bool:
        return isinstance(record.values.get("recording"), Mapping) or "tracks" in record.values

    def place(self, record: Record) -> Place:
        cut = record.values
        if "tracks" in cut:
            raise InvalidInput("the cut mixes several tracks, which is not supported. Save the mix first")
        _refuse_transforms(cut)
        channels = cut["recording"].get("channel_ids") or cut["recording"]["sources"][0].get("channels") or [0]
        wanted = cut.get("channel", channels)
        if sorted(wanted if isinstance(wanted, list) else [wanted]) != sorted(channels):
            raise InvalidInput(
                f"the cut selects channel {wanted} of {channels}, which is not supported. Extract the channel first"
            )
        path = _lhotse_source(cut["recording"])
        start, duration = (columns.seconds(name, cut.get(name), 1.0) for name in ("start", "duration"))
        if duration is None:
            raise InvalidInput("the cut has no duration")
        start = start or 0.0
        if duration <= 0:
            raise InvalidInput(f"duration is {duration:g} s; expected more than 0")
        used = frozenset({"id", "start", "duration", "channel", "recording", "type"})
        return Place((path,), _id(cut), start, start + duration, duration, used)


class LhotseRecording(Shape):
    """A Lhotse recording: `sources` and `duration`."""

    def matches(self, record: Record) -> bool:
        return isinstance(record.values.get("sources"), list)

    def place(self, record: Record) -> Place:
        values = record.values
        used = frozenset({"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids"})
        return Place(
            (_lhotse_source(values),), _id(values), lasts=columns.seconds("duration", values.get("duration"), 1.0), used=used
        )


class Columns(Shape):
    """A path column, and optionally an id, a start, an end and a duration, under their usual names."""

    def __init__(self, carried: frozenset[str] = frozenset()) -> None:
        super().__init__(carried)
        self._column: str | None = None

    def matches(self, record: Record) -> bool:
        return record.cell is not None or self._path_column(record.values) is not None

    def place(self, record: Record) -> Place:
        values = record.values
        column = self._path_column(values)
        value = values.get(column) if column is not None else None
        if record.cell is not None:
            embedded = value.get("path") if isinstance(value, Mapping) else value
            paths = (str(embedded),) if is_given(embedded) else ()
        else:
            paths = (address(value),)
            self._column = column
        part = columns.part(values, is_cut=record.cell is not None, carried=self._carried)
        named = columns.names_of(values).id
        used = part.used | {name for name in (column, named) if name is not None}
        identity = None if named is None else _identity(values[named])
        return Place(paths, identity, part.start, part.end, part.lasts, used)

    def _path_column(self, values: Mapping[str, Any]) -> str | None:
        """Return the column used for earlier rows, else the first with a value, else the first."""
        if self._column in values:
            return self._column
        names = columns.names_of(values).by_normal
        there = [names[name] for name in (*PATHS, FIRST) if name in names]
        structs = [name for name in there if isinstance(values[name], Mapping)]
        others = [name for name in there if not isinstance(values[name], list)]
        return next((name for name in (*structs, *others) if is_given(values[name])), there[0] if there else None)


SHAPES: tuple[type[Shape], ...] = (LhotseCut, LhotseRecording, Columns)
"""Schemas by priority; the first match reads a row."""


def address(value: Any) -> str:
    """Extract a file path from a field: a path, a `file://` URL, or a struct with either.

    Raises:
        InvalidInput: The field is something else.
    """
    if isinstance(value, Mapping):
        if is_given(value.get("bytes")) or is_given(value.get("array")):
            raise InvalidInput("the row embeds audio, which is read from Parquet only, as bytes")
        value = next((value[name] for name in value if normal(str(name)) in PATHS and is_given(value[name])), None)
    if not is_given(value):
        raise InvalidInput("the row has no path")
    if not isinstance(value, str):
        shown = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r}"[:200]
        raise InvalidInput(f"the path is {shown}; expected text")
    if value.rstrip().endswith("|"):
        raise InvalidInput(f"{value!r} is a pipe, and commands in lists are not run. Save its output as a file")
    scheme = SCHEME.match(value)
    if scheme is None:
        return value
    if scheme[1].lower() == "file":
        try:
            return unquote(urlsplit(value).path, errors="surrogateescape")
        except ValueError as error:
            raise InvalidInput(f"{value!r} is not a file URL: {error}") from error
    raise InvalidInput(f"{value} is a URL, and URLs are not downloaded. Download the file first")


def _lhotse_source(recording: Mapping[str, Any]) -> str:
    _refuse_transforms(recording)
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1:
        raise InvalidInput(f"the recording has {len(sources) if isinstance(sources, list) else 'no'} sources; expected one file")
    kind = sources[0].get("type", "file")
    if kind == "command":
        raise InvalidInput(
            f"{sources[0].get('source')!r} is a pipe, and commands in lists are not run. Save its output as a file"
        )
    if kind not in ("file", "url"):
        raise InvalidInput(f"the source has type {kind!r}; expected a file")
    return address(sources[0].get("source"))


def _refuse_transforms(values: Mapping[str, Any]) -> None:
    if values.get("transforms"):
        raise InvalidInput("the recording has transforms, which are not applied. Save the transformed audio first")


def _id(values: Mapping[str, Any]) -> str | None:
    return _identity(values.get("id"))


def _identity(value: Any) -> str | None:
    if not is_given(value):
        return None
    if isinstance(value, list | Mapping):
        raise InvalidInput(f"the id is {value!r}; expected text or a number")
    return str(value)
