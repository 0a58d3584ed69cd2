from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..dataset.runner import Executor, detokenize_dataset
from ..plugins.registry import Registry
from ..specs import LoadOptions
from . import datasets
from .options import as_json, loading, quiet, strict_weights


@click.command("detokenize")
@click.argument("source", metavar="DATASET", type=click.Path(path_type=Path, exists=True))
@click.option("-c", "--codec", "name", metavar="NAME", help="a model to use instead of the one that made the tokens")
@datasets.output
@click.option("--suffix", default=".wav", show_default=True, help="suffix of the audio files, which sets their format")
@datasets.executor
@loading
@strict_weights
@quiet
@as_json
def command(
    source: Path,
    name: str | None,
    output: Path,
    suffix: str,
    strict: bool,
    retry_failed: bool,
    executor: Executor,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Decode shards of tokens to audio files, named by id.

    DATASET is a folder that `tokenize` wrote, or one of its shards. The audio has the sample rate and length of the originals.
    """
    loading = LoadOptions.of(**options, parts="decoder")
    summary = detokenize_dataset(
        source,
        output,
        codec=None if name is None else Registry().provider(name, loading),
        options=loading,
        suffix=suffix,
        strict=strict,
        retry_failed=retry_failed,
        executor=executor,
        progress=datasets.progress(quiet),
    )
    return datasets.report(summary, output, quiet, as_json)
