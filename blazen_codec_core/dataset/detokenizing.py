"""Shards of tokens to recordings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from .. import recordings
from ..checks import Pcm
from ..errors import InvalidInput
from ..files import replaced_by
from ..provider import DynCodecProvider
from . import shards
from .books import Done, Usage
from .rows import Row
from .work import LONG, SHORT_TOGETHER, Job, Work, each, failure


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
        read, together, longest = shards.format_of(path).read(path), self.codec.batch_signals, LONG
        if together == 1 and self.codec.short_samples:
            together, longest = SHORT_TOGETHER, self.codec.short_samples / self.codec.sample_rate
        for row, error in each(read, together, lambda row: row.tokens.seconds < longest, self._write, self._batch):
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

    def _batch(self, rows: list[Row]) -> list[None]:
        audio = self.codec.decode_batch([row.tokens for row in rows])
        for row, pcm in zip(rows, audio, strict=True):
            self._write(row, pcm)
        return [None] * len(rows)

    def _write(self, row: Row, pcm: Pcm | None = None) -> None:
        """The audio of a row, decoded if it has not been."""
        path = place(self.job.out, row.id, self.job.suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"{self.job.out} cannot hold {row.id}: {error.strerror or error}") from error
        if pcm is None:
            recordings.decode_to_file(self.codec, row.tokens, path)
        else:
            recordings.restore_to_file(row.tokens, iter([pcm]), path)


def file_name(id: str, suffix: str) -> PurePosixPath:
    """Of the audio of a row, below the folder of all."""
    return PurePosixPath(id if id.lower().endswith(suffix.lower()) else id + suffix)


def place(folder: Path, id: str, suffix: str) -> Path:
    """Where the audio of a row goes; raises `InvalidInput` where an id would lead elsewhere."""
    name = file_name(id, suffix)
    if name.is_absolute() or ".." in name.parts or not id or "\0" in id:
        raise InvalidInput(f"the id {id!r} cannot be the name of a file")
    return folder / name
