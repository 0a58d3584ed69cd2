"""Command line of the benchmarks: `python -m benchmarks COMMAND`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from . import calls as python_calls
from . import datasets as whole_datasets
from . import engines, scaling, streaming, threads, timing
from . import halves as parts
from . import serve as servers
from . import startup as processes
from . import streams as pools
from . import throughput as batches

OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="folder for the JSON file and the figure")
CODECS = click.option("--codec", "names", multiple=True, default=engines.CODECS, show_default=True)
EMBEDDED = ("snac_tiny", "encodec_tiny", "dac_tiny")
"""Models whose weights are in their plugins."""
ROUNDS = click.option("--rounds", default=engines.ROUNDS, show_default=True)
MINUTES = click.option("--minutes", default=10, show_default=True, help="duration of the audio in seconds")


@click.group()
def main() -> None:
    """Run benchmarks, which interleave what they compare. They print JSON, and tables on stderr."""


def say(text: str) -> None:
    click.echo(text, err=True)


def show(result: dict[str, Any], *tables: Table) -> None:
    """Print the machine and the result as JSON, and tables on stderr."""
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
@click.option(
    "--seconds",
    "lengths",
    multiple=True,
    type=float,
    default=engines.LENGTHS,
    show_default=True,
    help="duration of the audio in seconds",
)
@ROUNDS
@OUTPUT
def compare(names: tuple[str, ...], lengths: tuple[float, ...], rounds: int, output: Path | None) -> None:
    """Compare this project with the authors' package, transformers, rustymimi, ONNX Runtime and OpenVINO.

    `onnxruntime` and `openvino` run the authors' modules, exported for the length of the audio, and `exported` runs the graphs of
    `blazen-codec export`, for any length.

    Rows `encode_stream` and `decode_stream` are frame by frame, for codecs that a peer streams. Rows `decode_steps` are in steps
    of 1, 4 and 8 frames. The authors' decoder of Qwen3-TTS runs on a window with 25 frames of context for each step.
    `authors_windows` is its own way to decode a whole: windows of 300 frames, each with 25 of context.

    All use the same weights, audio and threads. Runs are interleaved with measurements of the machine's GEMM rate.
    """
    result = engines.run(names, lengths, rounds, say)
    show(result, engines.table(result))
    keep(result, output, "compare", lambda path: engines.picture(result, path))


@main.command()
@click.option("--codec", "names", multiple=True, default=EMBEDDED, show_default=True)
def calls(names: tuple[str, ...]) -> None:
    """Count the Python calls of one push of the shortest tile, on a CPU."""
    rows = [row for name in names for row in python_calls.run(name)]
    show({"rows": rows}, python_calls.table(rows))


@main.command()
@CODECS
@MINUTES
@OUTPUT
def long(names: tuple[str, ...], minutes: int, output: Path | None) -> None:
    """Measure long sessions: compute per second of audio, and peak memory.

    Compute is compared with short sessions in between. Peak memory, above the loaded model, is measured in a separate process.
    """
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
    "--tile-frames", "tiles", multiple=True, type=int, help="frames per tile (default: the shortest possible, and the model's)"
)
@click.option("--seconds", default=10.0, show_default=True, help="duration of the audio in seconds")
@click.option("--device", default="auto", show_default=True)
@click.option("--graphs", is_flag=True, help="run steps as CUDA graphs")
def latency(names: tuple[str, ...], tiles: tuple[int, ...], seconds: float, device: str, graphs: bool) -> None:
    """Measure the latency of sessions fed frame by frame.

    Columns: audio needed before the first output, maximum steady-state latency, and compute per push. For GPUs, use
    `--device cuda`, with and without `--graphs`.
    """
    rows = [row for name in names for row in streaming.latency(name, tiles, seconds, device=device, graphs=graphs)]
    show({"rows": rows}, streaming.latency_table(rows))


@main.command()
@CODECS
@click.option("--device", default="auto", show_default=True)
@click.option("--batch", default=32, show_default=True, help="recordings per batch")
@click.option("--seconds", default=10.0, show_default=True, help="duration of each recording in seconds")
@ROUNDS
@OUTPUT
def throughput(names: tuple[str, ...], device: str, batch: int, seconds: float, rounds: int, output: Path | None) -> None:
    """Measure batches in every precision, and those of the authors' package and transformers; for GPUs.

    Columns: speed, memory, tokens that match the authors', and the difference of decoded audio.
    """
    rows = []
    for name in names:
        rows += batches.run(name, device, batch, seconds, rounds, say)
    show({"rows": rows}, batches.table(rows))
    keep({"rows": rows}, output, "throughput")


@main.command()
@click.option("--rounds", default=25, show_default=True)
def startup(rounds: int) -> None:
    """Compare the start-up of `blazen-codec list` with a bare interpreter and importing pydantic; time loading a model."""
    result = processes.run(rounds)
    show(result, processes.table(result))


@main.command()
@click.option("--codec", "name", default="snac_24khz", show_default=True, help="a SNAC model")
@click.option("--rounds", default=5, show_default=True)
def halves(name: str, rounds: int) -> None:
    """Compare the memory and the loading time of a whole model with those of its halves."""
    rows = parts.run(name, rounds)
    show({"rows": rows}, parts.table(rows))


@main.command()
@click.option("--codec", "names", multiple=True, default=("snac_tiny",), show_default=True)
@click.option("--files", default=2_000, show_default=True)
@click.option("--broken", default=20, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@OUTPUT
def datasets(names: tuple[str, ...], files: int, broken: int, workers: int, device: str, output: Path | None) -> None:
    """Compare `tokenize` on generated files with the model on audio in memory, with the same number of processes."""
    rows = [whole_datasets.run(name, files, broken, workers, device) for name in names]
    show({"rows": rows}, whole_datasets.table(rows))
    keep({"rows": rows}, output, "datasets")


@main.command("short")
@click.option("--codec", "names", multiple=True, default=("snac_tiny", "snac_24khz"), show_default=True)
@click.option("--files", default=2_000, show_default=True)
@click.option("--seconds", default=0.02, show_default=True, help="duration of each file in seconds")
@OUTPUT
def short_files(names: tuple[str, ...], files: int, seconds: float, output: Path | None) -> None:
    """Measure the CPU time per file of `tokenize` for recordings of a fraction of a second."""
    rows = [whole_datasets.short(name, files, seconds) for name in names]
    show({"rows": rows}, whole_datasets.table(rows, "Short recordings"))
    keep({"rows": rows}, output, "short")


@main.command()
@click.option("--codec", "names", multiple=True, default=("encodec_24khz",), show_default=True)
@click.option("--files", default=64, show_default=True)
@OUTPUT
def clips(names: tuple[str, ...], files: int, output: Path | None) -> None:
    """Measure the CPU time per file of `tokenize` for recordings of 2 to 15 s, and of one after the other."""
    rows = [whole_datasets.clips(name, files) for name in names]
    show({"rows": rows}, whole_datasets.table(rows, "Clips"))
    keep({"rows": rows}, output, "clips")


@main.command("scaling")
@click.option("--codec", "names", multiple=True, default=("snac_tiny", "encodec_24khz"), show_default=True)
@click.option("--speed", default=1_000.0, show_default=True, help="speed of a simulated worker, times real time")
@OUTPUT
def scale(names: tuple[str, ...], speed: float, output: Path | None) -> None:
    """Measure the costs of large datasets beyond the model: plans, journals and short recordings; simulate clusters."""
    result = scaling.run(names, speed)
    show(result, *scaling.tables(result))
    keep(result, output, "scaling")


@main.command()
@click.option("--codec", "names", multiple=True, default=threads.EMBEDDED, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="duration of the audio in seconds")
@ROUNDS
@OUTPUT
def contention(names: tuple[str, ...], seconds: float, rounds: int, output: Path | None) -> None:
    """Compare the default number of threads with one, alone and beside as many busy processes as there are cores."""
    rows = threads.contention(names, seconds, rounds, say)
    show({"rows": rows}, threads.contention_table(rows))
    keep({"rows": rows}, output, "contention")


@main.command()
@click.option("--codec", "names", multiple=True, default=EMBEDDED, show_default=True)
@click.option("--streams", "counts", multiple=True, type=int, default=(1, 16, 64, 256), show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="duration of the audio in seconds")
@click.option("--threads", "count", default=1, show_default=True)
@ROUNDS
@OUTPUT
def streams(
    names: tuple[str, ...], counts: tuple[int, ...], seconds: float, count: int, rounds: int, output: Path | None
) -> None:
    """Compare a pool of decoder streams with a session for each, and with a sliding window."""
    rows = pools.run(names, counts, seconds, rounds, count, say)
    show({"rows": rows}, pools.table(rows))
    keep({"rows": rows}, output, "streams")


@main.command("serve")
@click.option("--codec", "names", multiple=True, default=("snac_tiny", "snac_24khz"), show_default=True)
@click.option("--rate", "rates", multiple=True, type=float, default=(1.0, 5.0, 20.0), show_default=True, help="streams a second")
@click.option("--seconds", default=20.0, show_default=True, help="seconds of each measurement")
@OUTPUT
def serve_streams(names: tuple[str, ...], rates: tuple[float, ...], seconds: float, output: Path | None) -> None:
    """Load a server with streams by Poisson processes, and count listeners in real time, in a pool and as sliding windows."""
    rows = servers.run(names, rates, seconds, say)
    show({"rows": rows}, servers.table(rows))
    keep({"rows": rows}, output, "serve")


@main.command("scaling-threads")
@click.option("--codec", "names", multiple=True, default=(*threads.EMBEDDED, *engines.CODECS), show_default=True)
@click.option("--threads", "counts", multiple=True, type=int, help="numbers of threads (default: powers of two up to the cores)")
@click.option("--seconds", default=60.0, show_default=True, help="duration of the audio in seconds")
@ROUNDS
@OUTPUT
def scale_threads(names: tuple[str, ...], counts: tuple[int, ...], seconds: float, rounds: int, output: Path | None) -> None:
    """Measure how much faster several threads are than one."""
    powers = [2**number for number in range((os.cpu_count() or 1).bit_length())]
    rows = threads.scaling(names, sorted({1, *(counts or powers)}), seconds, rounds, say)
    show({"rows": rows}, threads.scaling_table(rows))
    keep({"rows": rows}, output, "scaling-threads")


@main.command("all")
@CODECS
@ROUNDS
@MINUTES
@OUTPUT
def everything(names: tuple[str, ...], rounds: int, minutes: int, output: Path | None) -> None:
    """Run compare, long, latency and startup into one JSON; takes an hour and a half on two cores."""
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
