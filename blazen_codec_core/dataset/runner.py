"""Resumable runs over datasets: planned once, then executed shard by shard."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from .. import weights
from ..audio import Truncated, check_format, loudness
from ..errors import InvalidInput
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..specs import Half, LoadOptions
from ..transcode import Progress, silent
from . import plan, run_state, shards, sources, tar_member
from .codebook_usage import CodebookUsage
from .destination import file_name, is_folding, same_file
from .executors import processes, ray
from .executors.ray import Cluster
from .fingerprints import LENGTH, NONE, Fingerprints, Verify
from .ids import Ids
from .items import Fault
from .jobs.base import Job
from .jobs.detokenize import DetokenizeJob
from .jobs.tokenize import TokenizeJob
from .run_state import RunState, ShardResult, Totals

VERSION = 3
"""Version of the run state in `.run`; runs of other versions cannot be resumed."""


@dataclass(frozen=True)
class Summary:
    """Summary of a dataset at the end of a run.

    Attributes:
        rows: Number of recordings that succeeded.
        failed: Number of recordings that failed.
        seconds: Duration of the audio in seconds.
        shards: Number of shards.
        new_seconds: Duration in seconds of the audio processed by this run.
        elapsed: Processing time of this run in seconds.
        codebooks: Fraction of the entries used, per codebook.
        failures: JSON lines file of failures with reasons; `None` if there are none.
        passed_over: Counts by suffix of audio files that were skipped.
        remark: Sentence about skipped files; empty if there are none.
        remarked: Number of rows with a non-empty column `remarks`.
    """

    rows: int
    failed: int
    seconds: float
    shards: int
    new_seconds: float
    elapsed: float
    codebooks: tuple[float, ...]
    failures: Path | None
    passed_over: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    remarked: int = 0

    @property
    def speed(self) -> float:
        """Speed of this run in seconds of audio per second."""
        return self.new_seconds / self.elapsed if self.elapsed else 0.0


@dataclass(frozen=True)
class Executor:
    """Workers that process the shards: local processes, or actors on Ray.

    Attributes:
        workers: Number of local processes; by default one per core or per GPU. 1 runs in this process.
        threads: Threads per worker on a CPU, if there are several workers.
        cluster: Ray cluster to use instead of this machine.
    """

    workers: int | None = None
    threads: int = 1
    cluster: Cluster | None = None

    def run(self, job: Job, numbers: Sequence[int], codec: DynCodecProvider) -> Iterator[ShardResult]:
        """Yield the results of shards as they complete."""
        if not numbers:
            return iter(())
        if self.cluster is not None:
            return ray.run(job, numbers, self.cluster)
        places = processes.devices(codec)
        count = min(self.workers or len(places), len(numbers))
        if count == 1:
            return map(job.open(codec), numbers)
        places = [places[number % len(places)] for number in range(count)]
        return processes.run(job, numbers, places, self.threads if places[0] == "cpu" else None)


def tokenize_dataset(
    source: str | PathLike[str],
    codec: str | DynCodecProvider,
    out: str | PathLike[str],
    *,
    bandwidth: float | None = None,
    mono: bool = False,
    normalize_db: float | None = None,
    format: str = "parquet",
    shard_minutes: float | None = None,
    columns: Sequence[str] | str = (),
    truncated: Truncated = "refuse",
    verify: Verify = "times",
    strict: bool = False,
    retry_failed: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Summary:
    """Tokenize recordings to shards of tokens.

    An interrupted run resumes when called again, with the same result row for row. Scripts must call this under
    `if __name__ == "__main__":`, because worker processes import the script.

    Args:
        source: Folder, tar, list or audio file; see `sources.find`.
        codec: Name of a model, or a provider from `load`.
        out: Output folder: new, empty, or of an interrupted run.
        bandwidth: Bandwidth in kbps, for codecs that offer several.
        mono: Mix the channels of each recording down to one.
        normalize_db: Target loudness in LUFS; recordings are read twice.
        format: `parquet`, or `tar` with one token container per recording.
        shard_minutes: Work per shard in minutes of audio, including overhead per recording. By default a 128th of the whole,
            between a minute and an hour.
        columns: Names of the list's columns to copy into the rows, or `all` for those that do not locate the recording. A name
            that the dataset already has becomes `source_NAME`.
        truncated: Policy for recordings shorter than their header says: `refuse`, or `keep` with a remark in the row.
        verify: Method to detect changed recordings on resume: `times` (size and modification time), or `content`, which reads
            the files.
        strict: Stop at the first recording that fails, instead of recording the failure.
        retry_failed: Process shards with failures again.
        executor: Workers; by default this machine's cores or GPUs.
        progress: Progress callback for steps and seconds of audio.

    Raises:
        InvalidInput: `source` has no recordings, `out` belongs to another run or is in use, or an option is invalid.
        CodecError: The model cannot be loaded or run; with `strict`, a recording failed.
    """
    codec, out = _provider(codec, TokenizeJob.half), Path(out)
    _check(codec, format, shard_minutes, bandwidth, normalize_db)
    _check_apart(source, out, format)
    columns = tuple(dict.fromkeys([columns] if isinstance(columns, str) else columns))
    found = sources.find(source, columns)
    weights_label = _weights(codec)
    asked = {
        "version": VERSION,
        "source": os.path.abspath(source),
        "codec": codec.name,
        "weights": weights_label,
        "bandwidth": bandwidth,
        "mono": mono,
        "normalize_db": normalize_db,
        "engine": codec.options.engine,
        "dtype": codec.options.dtype,
        "format": format,
        "shard_minutes": shard_minutes,
        "columns": list(columns),
        "truncated": truncated,
        "verify": verify,
    }
    with run_state.open_run(out) as kept:
        if kept.agrees(asked):
            kept.tidy()
            planned = _planned_before(kept, found, source, progress)
        else:
            kept.tidy()
            with progress("planning", 0) as advance:
                seconds = None if shard_minutes is None else 60 * shard_minutes
                planned = plan.make(kept.folder, found, columns=columns, shard_seconds=seconds, planned=lambda _: advance(1))
            _check_own_shards(out, len(planned.cuts), format)
            kept.note_asked(asked)
        job = TokenizeJob(
            codec=codec.name,
            options=codec.options,
            out=out.absolute(),
            format=format,
            weights=weights_label,
            bandwidth=bandwidth,
            mono=mono,
            normalize_db=normalize_db,
            strict=strict,
            truncated=truncated,
            verify=verify,
        )
        seconds_planned = [cut.seconds for cut in planned.cuts]
        work = [cut.work for cut in planned.cuts]
        executor, before = executor or Executor(), _before(kept, job, len(work), retry_failed, progress)
        _check_unchanged(before, planned, verify, out, progress)
        summary = _do(kept, before, seconds_planned, job, codec, executor, progress, work, planned.is_guess)
        return replace(summary, passed_over=found.passed.counts, remark=str(found.passed))


def detokenize_dataset(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    codec: str | DynCodecProvider | None = None,
    options: LoadOptions | None = None,
    suffix: str = ".wav",
    strict: bool = False,
    retry_failed: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Summary:
    """Decode shards of tokens to audio files, named by id, with the sample rate, length and channels of the originals.

    An interrupted run resumes when called again.

    Args:
        source: Folder of shards, or one shard.
        out: Output folder: new, empty, or of an interrupted run.
        codec: Model to decode with; by default the model of the first row.
        options: Options for that model. Without weights, `random:SEED` of the tokens is used.
        suffix: Suffix of the files, which sets their format; added to ids that do not end with it.
        strict, retry_failed, executor, progress: As for `tokenize_dataset`.

    Raises:
        InvalidInput: `source` has no rows, or `out` belongs to another run, is in use, or is full (`DiskTrouble`).
        CorruptFile: A shard cannot be read.
        CodecError: The model cannot be loaded or run; with `strict`, a row failed.
    """
    files, out = shards.files(source), Path(out)
    check_format(suffix)
    codec = _made_by(files, options or LoadOptions()) if codec is None else _provider(codec, DetokenizeJob.half)
    asked = {
        "version": VERSION,
        "source": os.path.abspath(source),
        "shards": [file.name for file in files],
        "tokens": _told(files),
        "codec": codec.name,
        "weights": _weights(codec),
        "suffix": suffix,
    }
    with run_state.open_run(out) as kept:
        begun = kept.agrees(asked)
        kept.tidy()
        with progress("listing", 0):
            seconds = [sum(seconds for _, seconds in shards.format_of(file).listing(file)) for file in files]
            taken = _taken(files, suffix, kept.folder)
            if not begun:
                kept.note_asked(asked)
        job = DetokenizeJob(
            codec=codec.name,
            options=codec.options,
            files=tuple(file.absolute() for file in files),
            out=out.absolute(),
            suffix=suffix,
            strict=strict,
            taken=taken,
        )
        before = _before(kept, job, len(files), retry_failed, progress)
        return _do(kept, before, seconds, job, codec, executor or Executor(), progress)


def _before(kept: RunState, job: Job, count: int, retry_failed: bool, progress: Progress) -> list[ShardResult]:
    """Return the results of finished shards that still exist and need not be repeated.

    Args:
        count: Number of shards.
    """
    noted = [done for done in kept.journal(count) if not (done.failures and retry_failed)]
    with progress("checking", 0) as advance:
        there = []
        for done in noted:
            if job.is_there(done, count):
                there.append(done)
            advance(1)
    return there


def _check_unchanged(before: Sequence[ShardResult], planned: plan.Plan, verify: Verify, out: Path, progress: Progress) -> None:
    """Raise `InvalidInput` if a recording that has a row was changed."""
    known = Fingerprints(planned.root, verify)

    def changed(done: ShardResult) -> str | None:
        for number, entry in enumerate(planned.items(done.shard)):
            seen = done.seen[number * LENGTH : (number + 1) * LENGTH]
            if seen != NONE and (isinstance(entry, Fault) or known.of(entry) != seen):
                return entry.path if isinstance(entry, Fault) else entry.name
        return None

    with progress("checking", 0) as advance, ThreadPoolExecutor(plan.READERS) as readers:
        for name in readers.map(changed, before):
            advance(1)
            if name is not None:
                raise InvalidInput(
                    f"{name} changed since {out} was started: its size, time or content differs. "
                    "Restore it or choose another folder"
                )


def _check_own_shards(out: Path, count: int, format: str) -> None:
    """Raise `InvalidInput` if the folder contains shards of another plan."""
    own = {shards.name_of(number, count, shards.FORMATS[format].suffix) for number in range(count)}
    others = sorted(path.name for path in out.iterdir() if run_state.SHARD.fullmatch(path.name) and path.name not in own)
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise InvalidInput(
            f"{out} has shards of another run: {', '.join(others[:3])}{more}. Move them away or choose another folder"
        )


def _do(
    kept: RunState,
    before: Sequence[ShardResult],
    planned: Sequence[float],
    job: Job,
    codec: DynCodecProvider,
    executor: Executor,
    progress: Progress,
    work: Sequence[float] | None = None,
    is_guess: bool = False,
) -> Summary:
    """Process the remaining shards, those with the most work first, and sum up.

    Args:
        before: Results of finished shards.
        planned: Duration of the audio of each shard in seconds.
        work: Work of each shard; its duration by default.
        is_guess: Durations are estimates.
    """
    work = planned if work is None else work
    totals = Totals(CodebookUsage(codec.spec.codebook_size))
    for done in before:
        totals.add(done)
    left = sorted(set(range(len(planned))) - totals.shards, key=lambda number: (-work[number], number))
    started, seconds_before = time.perf_counter(), totals.seconds
    with progress(f"{job.verb} about" if is_guess else job.verb, sum(planned[number] for number in left)) as advance:
        for done in executor.run(job, left, codec):
            kept.note(done)
            totals.add(done)
            advance(planned[done.shard])
    return Summary(
        rows=totals.rows,
        failed=totals.failed,
        seconds=totals.seconds,
        shards=len(planned),
        new_seconds=totals.seconds - seconds_before,
        elapsed=time.perf_counter() - started,
        codebooks=totals.usage.shares,
        failures=kept.write_failures() if totals.failed else None,
        remarked=totals.remarked,
    )


def _taken(files: Sequence[Path], suffix: str, scratch: Path) -> dict[int, dict[int, str]]:
    """Return the rows whose file an earlier row has: shard → row → id of the earlier row."""
    folding = is_folding(scratch)

    def listed() -> Iterator[tuple[int, int, str, str]]:
        for number, file in enumerate(files):
            for place, (id, _) in enumerate(shards.format_of(file).listing(file)):
                yield number, place, id, same_file(file_name(id, suffix), folding)

    with Ids(scratch) as names:
        for *_, name in listed():
            names.add(name)
        is_repeat = names.repeats()
        repeats = [(number, place, name) for number, place, _, name in listed() if is_repeat(name)]
    if not repeats:
        return {}
    repeated, first = {name for *_, name in repeats}, dict[str, str]()
    for _, _, id, name in listed():
        if name in repeated:
            first.setdefault(name, id)
    found: dict[int, dict[int, str]] = {}
    for number, place, name in repeats:
        found.setdefault(number, {})[place] = first[name]
    return found


def _told(files: Sequence[Path]) -> str:
    """Digest the sizes and times of shards, to detect changed ones."""
    told = hashlib.blake2b(digest_size=8)
    for file in files:
        status = file.stat()
        told.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return f"files of sizes and times {told.hexdigest()}"


def _made_by(files: Sequence[Path], options: LoadOptions) -> DynCodecProvider:
    """Return the codec of the first row, without its encoder."""
    options = options.model_copy(update={"parts": DetokenizeJob.half})
    for file in files:
        for row in shards.format_of(file).read(file):
            if options.weights is None and (row.tokens.weights or "").startswith("random:"):
                options = options.model_copy(update={"weights": row.tokens.weights})
            return Registry().provider(row.tokens.codec, options)
    raise InvalidInput("the shards have no rows")


def _planned_before(kept: RunState, found: sources.Source, source: str | PathLike[str], progress: Progress) -> plan.Plan:
    """Return the plan of an existing run; raise `InvalidInput` if the list of recordings changed."""
    planned = plan.read(kept.folder)
    with progress("listing", 0):
        same = planned is not None and plan.digest_of(found.entries) == planned.digest
    if planned is None or not same:
        raise InvalidInput(
            f"the recordings in {source} changed since {kept.folder.parent} was started. Restore them or choose another folder"
        )
    planned.check()
    return planned


def _check(
    codec: DynCodecProvider, format: str, shard_minutes: float | None, bandwidth: float | None, normalize_db: float | None
) -> None:
    """Raise errors early that would otherwise affect every recording."""
    if format not in shards.FORMATS:
        raise InvalidInput(f"format is {format!r}; expected {' or '.join(shards.FORMATS)}")
    shards.FORMATS[format].check_available()
    if shard_minutes is not None and not 0 < shard_minutes < float("inf"):
        raise InvalidInput(f"shard_minutes is {shard_minutes!r}; expected a positive number")
    codec.spec.codebooks_for(bandwidth)
    if normalize_db is not None:
        loudness.check_target(normalize_db)
        loudness.LoudnessMeter(codec.sample_rate, codec.channels)


def _check_apart(source: str | PathLike[str], out: Path, format: str) -> None:
    """Raise `InvalidInput` if a resumed run would find its own shards among the recordings."""
    inside = Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source))  # on Windows they may be on two drives
    if inside and shards.FORMATS[format].suffix == tar_member.SUFFIX:
        raise InvalidInput(
            f"{out} is inside {source}, so its tars would be read as recordings. Choose another folder, or Parquet"
        )


def _provider(codec: str | DynCodecProvider, half: Half) -> DynCodecProvider:
    """Return a codec, with only the half that is needed if it is given by name."""
    if isinstance(codec, str):
        return Registry().provider(codec, LoadOptions(parts=half))
    if codec.options.parts not in (None, half):
        raise InvalidInput(
            f"{codec.name} was loaded with parts={codec.options.parts!r}; this needs its {half}. Load it without parts"
        )
    return codec


def _weights(codec: DynCodecProvider) -> str | None:
    """Return the label of the weights without loading them; `None` for a codec without weights."""
    if not codec.spec.sources and codec.options.weights is None:
        return None
    found = weights.locate(codec.spec, codec.options)
    if codec.spec.license_notice:  # otherwise the backend and its imports are not needed here
        weights.give_notice(codec.spec, codec.id, found)
    return found.label
