from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import audio
from ..evaluation import evaluate
from ..plugins.registry import Registry
from ..specs import LoadOptions
from ..validation import Pcm
from . import files
from .options import (
    AUDIO,
    as_json,
    bandwidth,
    bandwidth_of,
    codec_name,
    force,
    loading,
    mono,
    normalize_db,
    num_codebooks,
    print_json,
    quiet,
)


@click.command("roundtrip")
@click.argument("source", metavar="IN", type=AUDIO)
@codec_name
@click.option("-o", "--output", type=AUDIO, help="the decoded audio; default: IN.NAME.wav in the current folder")
@click.option("--plot", type=AUDIO, help="a figure of both spectrograms, .png or .svg")
@force
@bandwidth
@num_codebooks
@mono
@normalize_db
@loading
@quiet
@as_json
def command(
    source: Path,
    name: str,
    output: Path | None,
    plot: Path | None,
    force: bool,
    bandwidth: float | None,
    num_codebooks: int | None,
    mono: bool,
    normalize_db: float | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Encode and decode an audio file, and measure the result."""
    registry = Registry()
    codec = registry.provider(name, LoadOptions.of(**options))
    output = output or Path(f"{source.stem}.{codec.spec.name}.wav")
    files.check_writable(output, force)
    files.check_recording(source, registry)
    bandwidth = bandwidth_of(codec.spec, bandwidth, num_codebooks)
    if plot:
        files.check_writable(plot, force)
        from ..evaluation import plots

        plots.check_available()
    codec.load()
    started = time.perf_counter()
    tokens = files.encode_file(codec, source, quiet, bandwidth=bandwidth, mono=mono, normalize_db=normalize_db)
    encoded = time.perf_counter()
    pieces: list[Pcm] = []
    files.decode_to_file(codec, tokens, output, quiet, heard=pieces.append)
    decoded = time.perf_counter()
    original, rate = audio.read(source)
    original = original.mean(axis=0, keepdims=True) if mono else original
    result = np.concatenate(pieces, axis=1)  # not the file, which has 16 bits
    scorer = evaluate.Scorer(("si_sdr_db", "log_mel_distance"))  # those that need no other packages
    scores = scorer(original, result, rate)
    summary = {
        "output": str(output),
        "codec": tokens.codec,
        "seconds": tokens.seconds,
        "kbps": tokens.kbps,
        "encode_real_time_factor": (encoded - started) / tokens.seconds,
        "decode_real_time_factor": (decoded - encoded) / tokens.seconds,
        **{name: score for name, score in scores.items() if name in scorer.names},
    }
    if plot:
        plots.spectrograms(original[0], result[0], rate, f"{source.name} through {codec.spec.name}", plot)
        summary["plot"] = str(plot)
    if as_json:
        print_json(summary)
    elif not quiet:
        click.echo(f"written      {output}" + (f" and {plot}" if plot else ""))
        click.echo(f"audio        {tokens.seconds:.2f} s, {tokens.channels} channel{'s' if tokens.channels > 1 else ''}")
        click.echo(f"bitrate      {summary['kbps']:.2f} kbps")
        click.echo(f"encoding     {summary['encode_real_time_factor']:.4f} s per second of audio")
        click.echo(f"decoding     {summary['decode_real_time_factor']:.4f} s per second of audio")
        click.echo(f"SI-SDR       {summary['si_sdr_db']:.2f} dB")
        click.echo(f"log-mel      {summary['log_mel_distance']:.3f} mean log10 difference")
