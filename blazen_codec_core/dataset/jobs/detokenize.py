"""Shards of tokens to recordings."""

from __future__ import annotations

import hashlib
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ... import transcode
from ...errors import InvalidInput
from ...files import replaced_by, unwritten
from ...provider import DynCodecProvider
from ...specs import Half
from ...validation import Pcm
from .. import shards
from ..codebook_usage import CodebookUsage
from ..destination import Destination, shortly
from ..rows import Row
from ..run_state import ShardResult
from .base import Batching, Job, Work, each, failure


@dataclass(frozen=True)
class DetokenizeJob(Job):
    """Job that decodes shards of tokens to audio files.

    Attributes:
        files: The shards.
        out: Output folder.
        suffix: Suffix of the audio files.
        strict: End the run at the first row that cannot be decoded.
        taken: Rows whose file an earlier row already has: shard → row → id of that earlier row.
    """

    files: tuple[Path, ...]
    out: Path
    suffix: str
    strict: bool
    taken: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    verb: ClassVar[str] = "decoding"
    half: ClassVar[Half] = "decoder"

    def open(self, codec: DynCodecProvider) -> Work:
        return Detokenizer(self, codec)

    def is_there(self, done: ShardResult, count: int) -> bool:
        failed, taken = Counter(failure.id for failure in done.failures), self.taken.get(done.shard, {})
        ids = list[str]()
        for place, (id, _) in enumerate(shards.format_of(self.files[done.shard]).listing(self.files[done.shard])):
            if place in taken:
                failed[id] -= 1
            else:
                ids.append(id)
        try:
            return (done.size, done.digest) == self.written(id for id in ids if failed[id] <= 0)
        except (InvalidInput, OSError):
            return False

    def written(self, ids: Iterable[str]) -> tuple[int, str]:
        """Return the total size of the audio files of rows, and a digest of their names, sizes and times.

        Raises:
            OSError: A file is missing.
            InvalidInput: An id is not a valid file name.
        """
        found, into = [], Destination(self.out)
        for id in ids:
            status = into.audio(id, self.suffix).lstat()
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(id)
            found.append((id, status.st_size, status.st_mtime_ns))
        told = hashlib.blake2b(repr(sorted(found)).encode(errors="backslashreplace"), digest_size=16)
        return sum(size for _, size, _ in found), told.hexdigest()


class Detokenizer:
    """Worker of a `DetokenizeJob`, which batches short rows."""

    def __init__(self, job: DetokenizeJob, codec: DynCodecProvider) -> None:
        self.job, self.codec, self._into = job, codec, Destination(job.out)

    def __call__(self, number: int) -> ShardResult:
        started, path = time.perf_counter(), self.job.files[number]
        taken = self.job.taken.get(number, {})
        self._tidy(path, taken)
        usage, failures, written, seconds = CodebookUsage(self.codec.spec.codebook_size), [], list[str](), 0.0
        batching = Batching.of(self.codec)

        def length(row: Row) -> float | None:
            return row.tokens.seconds if row.tokens.seconds < batching.longest else None

        def rows() -> Iterator[Row]:
            for place, row in enumerate(shards.format_of(path).read(path)):
                if place in taken:
                    failures.append(failure(row.id, row.path, _twice(row.id, taken[place]), self.job.strict))
                else:
                    yield row

        for row, error in each(rows(), batching, length, self._write, self._batch):
            if error is None:
                written.append(row.id)
                seconds += row.tokens.seconds
                usage.add(row.tokens.codes)
            else:
                failures.append(failure(row.id, row.path, error, self.job.strict))
        size, digest = self.job.written(written)
        return ShardResult(
            shard=number,
            rows=len(written),
            seconds=seconds,
            took=time.perf_counter() - started,
            failures=tuple(sorted(failures, key=lambda one: (one.id, one.error))),
            used=usage.packed,
            size=size,
            digest=digest,
        )

    def _tidy(self, shard: Path, taken: Mapping[int, str]) -> None:
        """Remove unfinished files that an earlier attempt at a shard left."""
        files = set()
        for place, (id, _) in enumerate(shards.format_of(shard).listing(shard)):
            if place in taken:  # another worker may be writing it
                continue
            with suppress(InvalidInput):  # reported when the row is processed
                files.add(self._into.audio(id, self.job.suffix))
        for folder in {file.parent for file in files if file.parent.is_dir()}:
            for path in folder.glob(".*"):
                if replaced_by(path) in files and path.is_file() and not path.is_symlink():
                    path.unlink()

    def _batch(self, rows: list[Row]) -> list[None]:
        audio = self.codec.decode_batch([row.tokens for row in rows])
        for row, pcm in zip(rows, audio, strict=True):
            self._write(row, pcm)
        return [None] * len(rows)

    def _write(self, row: Row, pcm: Pcm | None = None) -> None:
        """Write the audio of a row; decode it unless `pcm` is given."""
        path = self._into.audio(row.id, self.job.suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritten(self.job.out, error, f"cannot hold {shortly(row.id)}") from error
        if pcm is None:
            transcode.decode_to_file(self.codec, row.tokens, path)
        else:
            transcode.restore_to_file(row.tokens, iter([pcm]), path)


def _twice(id: str, first: str) -> InvalidInput:
    return InvalidInput(f"the ids {shortly(first)} (an earlier row) and {shortly(id)} map to the same file. Give one another id")
