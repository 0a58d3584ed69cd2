"""python -m benchmarks all | compare | long | latency | throughput | startup | datasets | short | scaling"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from . import datasets as whole_datasets
from . import engines, scaling, streaming, timing
from . import startup as processes
from . import throughput as batches

OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="folder for the JSON and the picture")
CODECS = click.option("--codec", "names", multiple=True, default=engines.CODECS, show_default=True)
ROUNDS = click.option("--rounds", default=engines.ROUNDS, show_default=True)
MINUTES = click.option("--minutes", default=10, show_default=True, help="of audio")


@click.group()
def main() -> None:
    """Measurements, each side by side in one run; they print JSON, and tables on stderr."""


def say(text: str) -> None:
    click.echo(text, err=True)


def show(result: dict[str, Any], *tables: Table) -> None:
    """The machine and the result as JSON, and the tables for reading."""
    console = Console(stderr=True, width=220)
    for table in tables:
        console.print(table)
    click.echo(json.dumps({"machine": timing.machine(), **result}, indent=2))


def keep(result: dict[str, Any], output: Path | None, name: str, picture: Callable[[Path], None] | None = None) -> None:
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{name}.json").write_text(json.dumps({"machine": timing.machine(), **result}, indent=2))
        if picture:
            picture(output / f"{name}.png")


@main.command()
@CODECS
@click.option("--seconds", "lengths", multiple=True, type=float, default=engines.LENGTHS, show_default=True, help="of audio")
@ROUNDS
@OUTPUT
def compare(names: tuple[str, ...], lengths: tuple[float, ...], rounds: int, output: Path | None) -> None:
    """Ours, the authors' package, transformers, ONNX Runtime and OpenVINO: the same weights, audio and threads, interleaved,
    with the machine's rate at matrix products measured between them."""
    result = engines.run(names, lengths, rounds, say)
    show(result, engines.table(result))
    keep(result, output, "compare", lambda path: engines.picture(result, path))


@main.command()
@CODECS
@MINUTES
@OUTPUT
def long(names: tuple[str, ...], minutes: int, output: Path | None) -> None:
    """Sessions of minutes: the work a second of audio against that of short sessions in between, and, in a process without
    those, peak memory above the loaded model."""
    rows = _long(names, minutes)
    show({"rows": rows}, streaming.long_table(rows))
    keep({"rows": rows}, output, "long")


def _long(names: tuple[str, ...], minutes: int) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        for row in streaming.long(name, minutes):
            say(f"{name} {row['what']} {minutes} min: {row['median']:.4f}, {row['over_short']:.3f}, {row['mib']:.0f} MiB")
            rows.append(row)
    return rows


@main.command()
@CODECS
@click.option(
    "--tile-frames", "tiles", multiple=True, type=int, help="by default the shortest that there can be, and the model's own"
)
@click.option("--seconds", default=10.0, show_default=True, help="of audio")
@click.option("--device", default="auto", show_default=True)
@click.option("--graphs", is_flag=True, help="steps as CUDA graphs")
def latency(names: tuple[str, ...], tiles: tuple[int, ...], seconds: float, device: str, graphs: bool) -> None:
    """Sessions fed frame by frame: how much must be in before the first output comes, how far behind it is from then on at
    most, and the work that one push takes. For GPUs: `--device cuda`, with `--graphs` and without."""
    rows = [row for name in names for row in streaming.latency(name, tiles, seconds, device=device, graphs=graphs)]
    show({"rows": rows}, streaming.latency_table(rows))


@main.command()
@CODECS
@click.option("--device", default="auto", show_default=True)
@click.option("--batch", default=32, show_default=True, help="recordings that are given together")
@click.option("--seconds", default=10.0, show_default=True, help="of each")
@ROUNDS
@OUTPUT
def throughput(names: tuple[str, ...], device: str, batch: int, seconds: float, rounds: int, output: Path | None) -> None:
    """Batches in every precision, beside the authors' package and transformers on the same device: speed, memory, tokens that
    are the authors', and how far decoded audio is apart. Made for GPUs."""
    rows = []
    for name in names:
        rows += batches.run(name, device, batch, seconds, rounds, say)
    show({"rows": rows}, batches.table(rows))
    keep({"rows": rows}, output, "throughput")


@main.command()
@click.option("--rounds", default=25, show_default=True)
def startup(rounds: int) -> None:
    """`blazen-codec list` against a bare interpreter and against importing pydantic, and a model ready to run."""
    result = processes.run(rounds)
    show(result, processes.table(result))


@main.command()
@click.option("--codec", "names", multiple=True, default=("snac_tiny",), show_default=True)
@click.option("--files", default=2_000, show_default=True)
@click.option("--broken", default=20, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@OUTPUT
def datasets(names: tuple[str, ...], files: int, broken: int, workers: int, device: str, output: Path | None) -> None:
    """`tokenize` over generated files of many lengths and kinds, against the model on audio in memory in as many processes."""
    rows = [whole_datasets.run(name, files, broken, workers, device) for name in names]
    show({"rows": rows}, whole_datasets.table(rows))
    keep({"rows": rows}, output, "datasets")


@main.command("short")
@click.option("--codec", "names", multiple=True, default=("snac_tiny", "snac_24khz"), show_default=True)
@click.option("--files", default=2_000, show_default=True)
@click.option("--seconds", default=0.02, show_default=True, help="of audio in a file")
@OUTPUT
def short_files(names: tuple[str, ...], files: int, seconds: float, output: Path | None) -> None:
    """`tokenize` over recordings of a fraction of a second: CPU time a file."""
    rows = [whole_datasets.short(name, files, seconds) for name in names]
    show({"rows": rows}, whole_datasets.table(rows, "Short recordings"))
    keep({"rows": rows}, output, "short")


@main.command("scaling")
@click.option("--codec", "names", multiple=True, default=("snac_tiny", "encodec_24khz"), show_default=True)
@click.option("--speed", default=1_000.0, show_default=True, help="of a worker in the simulations, times real time")
@OUTPUT
def scale(names: tuple[str, ...], speed: float, output: Path | None) -> None:
    """Measure the costs of large datasets beyond the model: plans, journals and short recordings; simulate clusters."""
    result = scaling.run(names, speed)
    show(result, *scaling.tables(result))
    keep(result, output, "scaling")


@main.command("all")
@CODECS
@ROUNDS
@MINUTES
@OUTPUT
def everything(names: tuple[str, ...], rounds: int, minutes: int, output: Path | None) -> None:
    """All of these, one after the other, in one JSON: an hour and a half on two cores."""
    compared = engines.run(names, engines.LENGTHS, rounds, say)
    keep(compared, output, "compare", lambda path: engines.picture(compared, path))
    longer = _long(names, minutes)
    late = [row for name in names for row in streaming.latency(name, (), 10.0)]
    started = processes.run(rounds)
    result = {"compare": compared, "long": longer, "latency": late, "startup": started}
    tables = (engines.table(compared), streaming.long_table(longer), streaming.latency_table(late), processes.table(started))
    show(result, *tables)
    keep(result, output, "all")


if __name__ == "__main__":
    main()
