"""One shard of work at a time, which depends on its number alone: whoever does it, and however often, writes the same."""

from __future__ import annotations

import dataclasses
import itertools
import json
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

import numpy as np

from .. import loudness, recordings
from ..checks import Pcm
from ..errors import CodecError, DeviceUnavailable, EngineNotAvailable, InvalidInput, WeightsUnavailable
from ..files import replaced_by
from ..provider import DynCodecProvider
from ..recordings import Recording
from ..registry import Registry
from ..specs import LoadOptions
from ..tokens import CodecTokens
from . import books, plan, shards
from .books import Done, Failure, Usage
from .items import Item
from .rows import Row

T = TypeVar("T")
Work = Callable[[int], Done]
AHEAD = 8
"""Pieces of audio, of 6 s or so, that are read and resampled before the model asks for them."""
LONG = 60.0
"""Seconds from which a recording is streamed even where the device runs several side by side."""
WINDOWS = 4
"""Batches of shorter recordings that are gathered, so that those of like length run together."""
FOR_ALL = (DeviceUnavailable, EngineNotAvailable, WeightsUnavailable)
"""Errors that have nothing to do with a recording, and would come back with the next one."""


@dataclass(frozen=True)
class Job(ABC):
    """Work that is cut into shards, and can be sent to another process or machine.

    Attributes:
        codec: `plugin:name`.
        options: How it is loaded.
        verb: What is done, for people.
    """

    codec: str
    options: LoadOptions
    verb: ClassVar[str]

    @abstractmethod
    def open(self, codec: DynCodecProvider) -> Work:
        """What does a shard, given its number."""

    def start(self, device: str | None = None) -> Work:
        """The same, with a codec of its own, which is loaded.

        Args:
            device: In place of the one in the options.
        """
        options = self.options if device is None else LoadOptions(**{**self.options.model_dump(), "device": device})
        codec = Registry().provider(self.codec, options)
        codec.load()
        return self.open(codec)


@dataclass(frozen=True)
class TokenizeJob(Job):
    """Recordings to tokens.

    Attributes:
        out: The folder of the dataset.
        format: Of its shards; one of `shards.FORMATS`.
        weights: That the tokens must be of, where that is known.
        bandwidth, mono, normalize_db: As for `recordings.encode`.
        strict: A recording that cannot be tokenised ends the run.
    """

    out: Path
    format: str
    weights: str | None
    bandwidth: float | None
    mono: bool
    normalize_db: float | None
    strict: bool
    verb: ClassVar[str] = "tokenizing"

    def open(self, codec: DynCodecProvider) -> Work:
        return Tokenizer(self, codec)

    @property
    def asked(self) -> str:
        """What every row says was asked for, beside the bandwidth."""
        named = {"mono": self.mono, "normalize_db": self.normalize_db, "engine": self.options.engine, "dtype": self.options.dtype}
        return json.dumps(named, sort_keys=True)


@dataclass(frozen=True)
class _Piece:
    """Of a recording that has been read ahead; the recording itself and an error come with what is known of them."""

    item: Item
    recording: Recording | None = None
    level: loudness.Level | None = None
    pcm: Pcm | None = None
    error: CodecError | None = None


class Tokenizer:
    """Does shards of a `TokenizeJob`.

    Recordings are read and resampled in a thread ahead of the model. Where the device runs several signals side by side, short
    ones are gathered into batches; all others are streamed, so that memory does not grow with their length.
    """

    def __init__(self, job: TokenizeJob, codec: DynCodecProvider) -> None:
        self.job, self.codec = job, codec

    @cached_property
    def _plan(self) -> plan.Plan:
        found = plan.read(self.job.out / books.FOLDER)
        if found is None:
            raise InvalidInput(f"{self.job.out} holds no plan")
        return found

    def __call__(self, number: int) -> Done:
        started = time.perf_counter()
        items, usage = list(self._plan.items(number)), Usage(self.codec.spec.codebook_size)
        made: dict[str, Row] = {}
        failures: dict[str, Failure] = {}
        for item, row in self._rows(items):
            if isinstance(row, Row):
                made[item.id] = row
                usage.add(row.tokens.codes)
            else:
                failures[item.id] = failure(item.id, item.name, row, self.job.strict)
        in_order = [made[item.id] for item in items if item.id in made]
        kind = shards.FORMATS[self.job.format]
        name = shards.name_of(number, len(self._plan.cuts), kind.suffix)
        kind.write(self.job.out / name, self.codec.spec, in_order)
        return Done(
            shard=number,
            rows=len(in_order),
            seconds=sum(row.tokens.seconds for row in in_order),
            took=time.perf_counter() - started,
            failures=tuple(failures[item.id] for item in items if item.id in failures),
            used=usage.packed,
        )

    def _rows(self, items: list[Item]) -> Iterator[tuple[Item, Row | CodecError]]:
        """What became of each item, in any order."""
        together = self.codec.batch_signals
        waiting: list[tuple[_Piece, Pcm]] = []
        for _, group in itertools.groupby(ahead(self._pieces(items), AHEAD), key=lambda piece: piece.item.id):
            pieces = iter(group)
            first = next(pieces)
            audio = _audio(itertools.chain([first], pieces))
            try:
                if together > 1 and first.recording is not None and first.recording.seconds < LONG:
                    waiting.append((first, np.concatenate(list(audio), axis=1)))
                else:
                    yield first.item, self._stream(first, audio)
            except CodecError as error:
                yield first.item, error
            if len(waiting) >= WINDOWS * together:
                yield from self._batch(waiting)
                waiting = []
        yield from self._batch(waiting)

    def _pieces(self, items: list[Item]) -> Iterator[_Piece]:
        """All recordings, one after the other; each has at least one piece."""
        for item in items:
            piece = _Piece(item)
            try:
                recording = Recording(lambda item=item: item.open(self._plan.root), self.codec, self.job.mono)  # type: ignore[misc]
                level = recordings.level_of(recording, self.codec, self.job.normalize_db)
                piece = _Piece(item, recording, level)
                for pcm in recording.pieces():
                    yield dataclasses.replace(piece, pcm=pcm * level.factors if level else pcm)
            except CodecError as error:
                yield dataclasses.replace(piece, error=error)

    def _stream(self, first: _Piece, audio: Iterator[Pcm]) -> Row:
        channels = first.recording.channels.count if first.recording else 1
        return self._row(first, recordings.encode_pieces(self.codec, audio, channels, self.job.bandwidth))

    def _batch(self, waiting: list[tuple[_Piece, Pcm]]) -> Iterator[tuple[Item, Row | CodecError]]:
        """Several recordings side by side; one by one where that fails."""
        if not waiting:
            return
        try:
            audio = [pcm for _, pcm in waiting]
            tokens = self.codec.encode_batch(audio, self.codec.sample_rate, bandwidth=self.job.bandwidth)
        except CodecError:
            for first, pcm in waiting:
                try:
                    yield first.item, self._stream(first, iter([pcm]))
                except CodecError as error:
                    yield first.item, error
            return
        yield from ((first.item, self._row(first, own)) for (first, _), own in zip(waiting, tokens, strict=True))

    def _row(self, first: _Piece, tokens: CodecTokens) -> Row:
        recording, item = first.recording, first.item
        assert recording is not None
        if None not in (self.job.weights, tokens.weights) and tokens.weights != self.job.weights:
            raise WeightsUnavailable(f"this run is of weights {self.job.weights}, but {tokens.weights} were found here")
        level = first.level.loudness if first.level else None
        return Row(
            id=item.id,
            path=item.name,
            tokens=dataclasses.replace(tokens, source=recording.source, loudness=level),
            start=item.start,
            source_sample_rate=recording.sample_rate,
            source_num_samples=recording.read,
            source_channels=recording.channels.recorded,
            options=self.job.asked,
        )


@dataclass(frozen=True)
class DetokenizeJob(Job):
    """Tokens to recordings.

    Attributes:
        files: The shards.
        out: The folder that the audio goes to.
        suffix: Of its files.
        strict: A row that cannot be decoded ends the run.
    """

    files: tuple[Path, ...]
    out: Path
    suffix: str
    strict: bool
    verb: ClassVar[str] = "decoding"

    def open(self, codec: DynCodecProvider) -> Work:
        return Detokenizer(self, codec)


class Detokenizer:
    """Does shards of a `DetokenizeJob`; short rows side by side, where the device runs several."""

    def __init__(self, job: DetokenizeJob, codec: DynCodecProvider) -> None:
        self.job, self.codec = job, codec

    def __call__(self, number: int) -> Done:
        started, path = time.perf_counter(), self.job.files[number]
        self._tidy(path)
        usage, failures, rows, seconds = Usage(self.codec.spec.codebook_size), [], 0, 0.0
        for row, error in self._written(shards.format_of(path).read(path)):
            if error is None:
                rows, seconds = rows + 1, seconds + row.tokens.seconds
                usage.add(row.tokens.codes)
            else:
                failures.append(failure(row.id, row.path, error, self.job.strict))
        took = time.perf_counter() - started
        return Done(number, rows, seconds, took, tuple(sorted(failures, key=lambda one: one.id)), usage.packed)

    def _tidy(self, shard: Path) -> None:
        """Removes what was left half-written of the files of a shard, when it was begun before."""
        listed = shards.format_of(shard).listing(shard)
        files = {self.job.out / file_name(id, self.job.suffix) for id, _ in listed}
        for folder in {file.parent for file in files if file.parent.is_dir()}:
            for path in folder.glob(".*"):
                if path not in files and replaced_by(path) in files:
                    path.unlink()

    def _written(self, rows: Iterator[Row]) -> Iterator[tuple[Row, CodecError | None]]:
        together = self.codec.batch_signals
        waiting: list[Row] = []
        for row in rows:
            if together > 1 and row.tokens.seconds < LONG:
                waiting.append(row)
            else:
                yield row, self._write(row)
            if len(waiting) >= WINDOWS * together:
                yield from self._batch(waiting)
                waiting = []
        yield from self._batch(waiting)

    def _batch(self, waiting: list[Row]) -> Iterator[tuple[Row, CodecError | None]]:
        try:
            audio = self.codec.decode_batch([row.tokens for row in waiting]) if waiting else []
        except CodecError:
            yield from ((row, self._write(row)) for row in waiting)
            return
        yield from ((row, self._write(row, pcm)) for row, pcm in zip(waiting, audio, strict=True))

    def _write(self, row: Row, pcm: Pcm | None = None) -> CodecError | None:
        """The audio of a row, decoded if it has not been; what went wrong."""
        try:
            path = place(self.job.out, row.id, self.job.suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            if pcm is None:
                recordings.decode_to_file(self.codec, row.tokens, path)
            else:
                recordings.restore_to_file(row.tokens, iter([pcm]), path)
        except CodecError as error:
            return error
        except OSError as error:
            return InvalidInput(f"{self.job.out} cannot hold {row.id}: {error.strerror or error}")
        return None


def failure(id: str, path: str, error: CodecError, strict: bool) -> Failure:
    """What is noted of an error; raises it, if it is one that ends the run."""
    if isinstance(error, FOR_ALL):
        raise error
    if strict:
        raise type(error)(f"{path}: {error}") from error
    return Failure(id, path, f"{type(error).__name__}: {error}")


def file_name(id: str, suffix: str) -> PurePosixPath:
    """Of the audio of a row, below the folder of all."""
    return PurePosixPath(id if id.lower().endswith(suffix.lower()) else id + suffix)


def place(folder: Path, id: str, suffix: str) -> Path:
    """Where the audio of a row goes; raises `InvalidInput` where an id would lead elsewhere."""
    name = file_name(id, suffix)
    if name.is_absolute() or ".." in name.parts or not id or "\0" in id:
        raise InvalidInput(f"the id {id!r} cannot be the name of a file")
    return folder / name


def _audio(pieces: Iterator[_Piece]) -> Iterator[Pcm]:
    """Raises where reading did."""
    for piece in pieces:
        if piece.error is not None:
            raise piece.error
        if piece.pcm is not None:
            yield piece.pcm


def ahead(values: Iterator[T], most: int) -> Iterator[T]:
    """The same values, worked out in a thread, at most so many before they are asked for."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(most)
    given_up = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not given_up.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for value in values:
                put("value", value)
                if given_up.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="blazen-codec reader", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        given_up.set()
        thread.join()
