from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..evaluation import evaluate, opus
from ..plugins.registry import Registry
from ..specs import LoadOptions
from .files import check_writable
from .options import AUDIO, as_json, bandwidth, bandwidth_of, force, judging, loading, mono, num_codebooks, print_json, quiet
from .progress import bar


@click.command("evaluate")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--audio",
    "sources",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="a recording, or a folder of recordings; repeatable",
)
@click.option(
    "--against",
    type=click.Choice(["opus"]),
    help="also encode with libopus (ffmpeg or opus-tools) at the nearest bitrate",
)
@judging
@click.option("--plot", type=AUDIO, help="a figure of the results, .png or .svg")
@force
@bandwidth
@num_codebooks
@mono
@loading
@quiet
@as_json
def command(
    names: tuple[str, ...],
    sources: tuple[Path, ...],
    against: str | None,
    judge: evaluate.Scorer,
    plot: Path | None,
    force: bool,
    bandwidth: float | None,
    num_codebooks: int | None,
    mono: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure models on recordings: SI-SDR, log-mel distance, STOI, PESQ, bitrate, codebook usage, speed.

    Recordings are resampled to each model's rate. Needs the extra `evaluate`.
    """
    registry = Registry()
    codecs = [registry.provider(name, LoadOptions.of(**options)) for name in names]
    bandwidths = [bandwidth_of(codec.spec, bandwidth, num_codebooks) for codec in codecs]
    paths = evaluate.recordings(sources)
    judge.check_available()
    if against:
        opus.check_available()
    if plot:
        from ..evaluation import plots

        check_writable(plot, force)
        plots.check_available()
    reports: list[evaluate.Report] = []
    with bar("evaluating", len(codecs) * len(paths) * (2 if against else 1), quiet) as advance:
        done = partial(advance, 1)
        for name, codec, kbps in zip(names, codecs, bandwidths, strict=True):
            reports.append(evaluate.evaluate(codec, paths, judge, mono=mono, bandwidth=kbps, name=name, done=done))
            if against:
                reports.append(evaluate.evaluate_opus(codec, reports[-1], judge, mono=mono, done=done))
    if plot:
        plots.evaluations(reports, plot)
    if as_json:
        print_json([summary(report) for report in reports])
    elif not quiet:
        show(reports, len(paths))
        if plot:
            click.echo(f"wrote {plot}")


def summary(report: evaluate.Report) -> dict[str, Any]:
    """JSON object of a report; metrics that are not available are null."""
    means = {name: report.mean(name) for name in (*evaluate.QUALITIES, "kbps", "file_kbps", "encode_speed", "decode_speed")}
    return {
        "system": report.system,
        "mean": evaluate.without_nan(means),
        "codebooks": [asdict(book) for book in report.codebooks],
        "recordings": [evaluate.without_nan(asdict(result)) for result in report.results],
    }


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("kbps", "kbps", ".2f"),
    ("SI-SDR dB", "si_sdr_db", ".2f"),
    ("log-mel", "log_mel_distance", ".3f"),
    ("STOI", "stoi", ".3f"),
    ("PESQ", "pesq", ".2f"),
    ("encode ×", "encode_speed", ".1f"),
    ("decode ×", "decode_speed", ".1f"),
)


def show(reports: list[evaluate.Report], recordings: int) -> None:
    """Print one line per system, then its codebook usage."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110)
    seconds = sum(result.seconds for result in reports[0].results)
    table = Table(title=f"{recordings} recordings, {seconds:.1f} s", title_justify="left")
    table.add_column("")
    for name, _, _ in COLUMNS:
        table.add_column(name, justify="right")
    for report in reports:
        table.add_row(report.system, *(number(report.mean(field), form) for _, field, form in COLUMNS))
    console.print(table)
    books = Table(title="codebooks: entries used, entropy/bits", title_justify="left")
    books.add_column("")
    with_books = [report for report in reports if report.codebooks]
    for count in range(max(len(report.codebooks) for report in with_books)):
        books.add_column(str(count + 1), justify="right")
    for report in with_books:
        books.add_row(report.system, *(f"{book.used:.0%}\n{book.entropy:.1f}/{book.bits:.0f}" for book in report.codebooks))
    console.print(books)
    files = [report for report in reports if not math.isnan(report.mean("file_kbps"))]
    for report in files:
        click.echo(f"{report.system}: {report.mean('file_kbps'):.2f} kbps with its container")


def number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
