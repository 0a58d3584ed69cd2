from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..audio import Truncated
from ..dataset.fingerprints import Verify
from ..dataset.runner import Executor, tokenize_dataset
from ..plugins.registry import Registry
from ..specs import LoadOptions
from . import datasets
from .options import as_json, bandwidth, bandwidth_of, codec_name, loading, mono, normalize_db, num_codebooks, quiet, truncated


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


@click.command("tokenize")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path, exists=True))
@codec_name
@datasets.output
@bandwidth
@num_codebooks
@mono
@normalize_db
@click.option("--format", "kind", type=click.Choice(["parquet", "tar"]), default="parquet", show_default=True)
@click.option("--shard-minutes", type=float, help="minutes of audio per shard; default: depends on the dataset's size")
@click.option("--columns", metavar="NAMES", callback=_names, help="columns of the list to copy, such as text,speaker; or all")
@truncated
@click.option(
    "--verify",
    type=click.Choice(["times", "content"]),
    default="times",
    show_default=True,
    help="detect changed recordings on resume by size and time, or by content",
)
@datasets.executor
@loading
@quiet
@as_json
def command(
    source: Path,
    name: str,
    output: Path,
    bandwidth: float | None,
    num_codebooks: int | None,
    mono: bool,
    normalize_db: float | None,
    kind: str,
    shard_minutes: float | None,
    columns: tuple[str, ...],
    truncated: Truncated,
    verify: Verify,
    strict: bool,
    retry_failed: bool,
    executor: Executor,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Tokenize a dataset to shards of tokens.

    INPUT is a folder of audio files or tars, a tar, a Kaldi data directory, or a list: .jsonl, .json, .csv, .tsv, .txt or
    .parquet. A list has a column of paths relative to the list (`path`, `audio_filepath`, `file_name` ...), and optionally
    `id`, `start`, and `end` or `duration`. A recording that cannot be tokenized is recorded as a failure and skipped. The exit
    code is 1 if nothing succeeded.

    An interrupted run resumes when started again with the same options; the result is the same.
    """
    codec = Registry().provider(name, LoadOptions.of(**options, parts="encoder"))
    summary = tokenize_dataset(
        source,
        codec,
        output,
        bandwidth=bandwidth_of(codec.spec, bandwidth, num_codebooks),
        mono=mono,
        normalize_db=normalize_db,
        format=kind,
        shard_minutes=shard_minutes,
        columns=columns,
        truncated=truncated,
        verify=verify,
        strict=strict,
        retry_failed=retry_failed,
        executor=executor,
        progress=datasets.progress(quiet),
    )
    return datasets.report(summary, output, quiet, as_json)
