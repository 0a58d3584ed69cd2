"""Shards of recordings to shards of tokens."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ... import transcode
from ...audio import AudioReader, Truncated, loudness
from ...errors import InvalidInput, WeightsUnavailable
from ...forks import cached_property
from ...provider import DynCodecProvider
from ...specs import Half
from ...tokens.tokens import CodecTokens
from ...transcode import Recording
from ...validation import Pcm
from .. import plan, run_state, shards
from ..codebook_usage import CodebookUsage
from ..destination import Destination
from ..executors.processes import cores
from ..fingerprints import NONE, Fingerprints, Verify
from ..items import AudioItem, Fault
from ..parquet_cells import ParquetCells
from ..prefetch import map_in_threads, prefetch
from ..rows import Row
from ..run_state import Failure, ShardResult
from ..seals import digest_of
from .base import LONG, Batching, Job, Unreadable, Work, each, failure

PREFETCH = 8
"""Number of chunks of audio, about 6 s each, that are read and resampled ahead of the model."""
MOST_READERS = 16


@dataclass(frozen=True)
class TokenizeJob(Job):
    """Job that encodes recordings to shards of tokens.

    Attributes:
        out: Folder of the dataset.
        format: Format of the shards, a key of `shards.FORMATS`.
        weights: Required weights label, if known.
        bandwidth, mono, normalize_db: As for `transcode.encode`.
        strict: End the run at the first recording that fails.
        truncated: Policy for files shorter than their header says.
        verify: Method to detect changed recordings.
    """

    out: Path
    format: str
    weights: str | None
    bandwidth: float | None
    mono: bool
    normalize_db: float | None
    strict: bool
    truncated: Truncated = "refuse"
    verify: Verify = "times"
    verb: ClassVar[str] = "tokenizing"
    half: ClassVar[Half] = "encoder"

    def open(self, codec: DynCodecProvider) -> Work:
        return Tokenizer(self, codec)

    def is_there(self, done: ShardResult, count: int) -> bool:
        path = self.shard(done.shard, count)
        try:
            return path.stat().st_size == done.size and digest_of(path) == done.digest
        except OSError:
            return False

    def shard(self, number: int, count: int) -> Path:
        """Path that a shard is written to."""
        return Destination(self.out).shard(shards.name_of(number, count, shards.FORMATS[self.format].suffix))

    @property
    def asked(self) -> str:
        """Settings of the run, besides the bandwidth, as JSON that every row carries."""
        named = {"mono": self.mono, "normalize_db": self.normalize_db, "engine": self.options.engine, "dtype": self.options.dtype}
        return json.dumps(named, sort_keys=True)


@dataclass(frozen=True)
class _Chunk:
    """A chunk of a recording that was read ahead; fields are `None` until known.

    Attributes:
        number: Index of the recording in the shard.
        seen: Fingerprint, taken before the recording is read.
    """

    number: int
    item: AudioItem
    recording: Recording | None = None
    level: loudness.Level | None = None
    pcm: Pcm | None = None
    error: Exception | None = None
    seen: str = NONE


@dataclass(frozen=True)
class _LoadedAudio:
    """Audio of a recording: an iterator of chunks, and the whole signal if it is in memory."""

    first: _Chunk
    audio: Iterator[Pcm]
    whole: Pcm | None = None


class Tokenizer:
    """Worker of a `TokenizeJob`.

    A thread reads and resamples recordings ahead of the model. On devices that run batches, several threads read short
    recordings, because one cannot keep the device busy, and these are batched. Other recordings are streamed, so that memory
    does not grow with their length.
    """

    def __init__(self, job: TokenizeJob, codec: DynCodecProvider) -> None:
        self.job, self.codec = job, codec
        self._cells = ParquetCells()

    @cached_property
    def _plan(self) -> plan.Plan:
        found = plan.read(self.job.out / run_state.FOLDER)
        if found is None:
            raise InvalidInput(f"{self.job.out} has no plan")
        return found

    @cached_property
    def _fingerprints(self) -> Fingerprints:
        return Fingerprints(self._plan.root, self.job.verify)

    def __call__(self, number: int) -> ShardResult:
        started = time.perf_counter()
        entries, usage = list(self._plan.items(number)), CodebookUsage(self.codec.spec.codebook_size)
        made: dict[int, Row] = {}
        failures: dict[int, Failure] = {}
        seen: dict[int, str] = {}
        for place, entry in enumerate(entries):
            if isinstance(entry, Fault):
                if self.job.strict:
                    raise InvalidInput(f"{entry.path}: {entry.error}")
                failures[place] = Failure(entry.id, entry.path, entry.error)
        for piece, row in self._rows([(place, entry) for place, entry in enumerate(entries) if isinstance(entry, AudioItem)]):
            if isinstance(row, Row):
                made[piece.number], seen[piece.number] = row, piece.seen
                usage.add(row.tokens.codes)
            else:
                failures[piece.number] = failure(piece.item.id, piece.item.name, row, self.job.strict)
        in_order = [made[place] for place in sorted(made)]
        kind = shards.FORMATS[self.job.format]
        path = self.job.shard(number, len(self._plan.cuts))
        carried = {column.stored: column.kind for column in self._plan.columns}
        kind.write(path, self.codec.spec, in_order, carried)
        return ShardResult(
            shard=number,
            rows=len(in_order),
            seconds=sum(row.tokens.seconds for row in in_order),
            took=time.perf_counter() - started,
            failures=tuple(failures[place] for place in sorted(failures)),
            used=usage.packed,
            remarked=sum(bool(row.remarks) for row in in_order),
            size=path.stat().st_size,
            digest=digest_of(path),
            seen="".join(seen.get(place, NONE) for place in range(len(entries))),
        )

    def _rows(self, items: list[tuple[int, AudioItem]]) -> Iterator[tuple[_Chunk, Row | Exception]]:
        """Yield the first chunk of each item with its row, or with the error that it ended in, in any order."""
        batching = Batching.of(self.codec)

        def seconds(one: _LoadedAudio) -> float | None:
            return None if one.whole is None else one.whole.shape[1] / self.codec.sample_rate

        for one, row in each(self._heard(items, batching.longest), batching, seconds, self._stream, self._batch):
            yield one.first, row

    def _heard(self, items: list[tuple[int, AudioItem]], longest: float) -> Iterator[_LoadedAudio]:
        """Yield the audio of all recordings; those shorter than `longest` seconds are loaded whole."""
        if self.codec.max_batch_size > 1:
            yield from map_in_threads(self._read, items, readers())
            return
        for _, group in itertools.groupby(prefetch(self._pieces(items), PREFETCH), key=lambda piece: piece.number):
            pieces = iter(group)
            first = next(pieces)
            every = itertools.chain([first], pieces)
            yield _whole(first, every) if _is_shorter(first.recording, longest) else _LoadedAudio(first, _audio(every))

    def _read(self, item: tuple[int, AudioItem]) -> _LoadedAudio:
        """Load a short recording whole; open a long one for streaming."""
        pieces = self._pieces([item])
        first = next(pieces)
        every = itertools.chain([first], pieces)
        return (
            _whole(first, every) if _is_shorter(first.recording, LONG) else _LoadedAudio(first, _audio(prefetch(every, PREFETCH)))
        )

    def _pieces(self, items: list[tuple[int, AudioItem]]) -> Iterator[_Chunk]:
        """Yield the chunks of all recordings in turn, at least one each. An error affects only its own recording."""
        for number, item in items:
            piece = _Chunk(number, item, seen=self._fingerprints.of(item))
            try:
                with _OpenedOnce(lambda item=item: item.open(self._plan.root, self._cells, self.job.truncated)) as opened:  # type: ignore[misc]
                    recording = Recording(opened, self.codec, self.job.mono)
                    level = transcode.level_of(recording, self.codec, self.job.normalize_db)
                    piece = dataclasses.replace(piece, recording=recording, level=level)
                    for pcm in recording.pieces():
                        yield dataclasses.replace(piece, pcm=pcm * level.factors if level else pcm)
            except Exception as error:
                yield dataclasses.replace(piece, error=Unreadable(error))

    def _stream(self, one: _LoadedAudio) -> Row:
        """Encode a recording while it is read, and return its row."""
        channels = one.first.recording.channels.count if one.first.recording else 1
        return self._row(one.first, transcode.encode_signal(self.codec, one.audio, channels, self.job.bandwidth))

    def _batch(self, some: list[_LoadedAudio]) -> list[Row]:
        audio = [one.whole for one in some]
        tokens = self.codec.encode_batch(audio, self.codec.sample_rate, bandwidth=self.job.bandwidth)
        return [self._row(one.first, own) for one, own in zip(some, tokens, strict=True)]

    def _row(self, first: _Chunk, tokens: CodecTokens) -> Row:
        recording, item = first.recording, first.item
        assert recording is not None
        if None not in (self.job.weights, tokens.weights) and tokens.weights != self.job.weights:
            raise WeightsUnavailable(f"this worker found weights {tokens.weights}; the run uses {self.job.weights}")
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
            carried=item.carried,
            remarks=tuple(recording.found),
        )


class _OpenedOnce:
    """Opens a recording once for two uses: reading the header, then the samples."""

    def __init__(self, open_it: Callable[[], AudioReader]) -> None:
        self._open, self._ready = open_it, ExitStack()
        self._reader: AudioReader | None = None
        self._looked_at = False

    def __call__(self) -> Any:
        if self._reader is None:
            self._reader = self._ready.enter_context(self._open())
            return nullcontext(self._reader)
        if not self._looked_at:
            self._looked_at = True
            return nullcontext(self._reader)
        return self._open()

    def __enter__(self) -> _OpenedOnce:
        return self

    def __exit__(self, *_: object) -> None:
        self._ready.close()


def _is_shorter(recording: Recording | None, limit: float) -> bool:
    """Tell whether a recording is known to be shorter than `limit` seconds."""
    seconds: float | None = None if recording is None else recording.seconds
    return seconds is not None and seconds < limit


def _whole(first: _Chunk, pieces: Iterator[_Chunk]) -> _LoadedAudio:
    """Load a recording into memory."""
    try:
        whole = np.concatenate(list(_audio(pieces)), axis=1)
    except Exception as error:
        return _LoadedAudio(first, _audio(iter([dataclasses.replace(first, error=error)])))
    return _LoadedAudio(first, iter([whole]), whole)


def _audio(pieces: Iterator[_Chunk]) -> Iterator[Pcm]:
    """Yield the samples of chunks; raise the error of a chunk that could not be read."""
    for piece in pieces:
        if piece.error is not None:
            raise piece.error
        if piece.pcm is not None:
            yield piece.pcm


def readers() -> int:
    """Return the number of reader threads per device."""
    import torch

    return max(1, min(MOST_READERS, cores() // max(1, torch.cuda.device_count())))
