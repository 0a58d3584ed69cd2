"""Options, progress and final report of the commands on datasets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..dataset.executors.ray import Cluster
from ..dataset.runner import Executor, Summary
from ..foreign_json import parse_object
from ..transcode import Advance, Progress
from .options import print_json, say

F = TypeVar("F", bound=Callable[..., Any])
MINUTE, HOUR = 60.0, 3600.0
TEN = 10
"""Speed from which decimals do not matter."""

output = click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="a new folder, or one to resume"
)


def executor(function: F) -> F:
    """Add the options for workers and failures to a command, which receives them as `executor: Executor`."""

    @functools.wraps(function)
    def command(
        *,
        executor: str,
        workers: int | None,
        threads: int,
        address: str | None,
        cpus: float,
        gpus: float,
        **others: Any,
    ) -> Any:
        cluster = None
        if executor == "ray":
            most = Cluster.workers[1] if workers is None else workers
            cluster = Cluster(address, (min(Cluster.workers[0], most), most), cpus, gpus)
        elif address is not None:
            raise click.UsageError("--address requires --executor ray")
        return function(executor=Executor(workers, threads, cluster), **others)

    for option in reversed(
        (
            click.option("--strict", is_flag=True, help="stop at the first failure, instead of recording it"),
            click.option("--retry-failed", is_flag=True, help="process failed recordings again"),
            click.option("--workers", type=click.IntRange(min=1), help="number of processes; on Ray, the maximum"),
            click.option(
                "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="threads per worker on a CPU"
            ),
            click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True),
            click.option("--address", metavar="HOST:PORT", help="address of a Ray cluster"),
            click.option("--cpus", type=float, default=Cluster.cpus, show_default=True, help="CPU cores per worker on Ray"),
            click.option("--gpus", type=float, default=Cluster.gpus, show_default=True, help="GPUs per worker on Ray"),
        )
    ):
        command = option(command)
    return command  # type: ignore[return-value]


def progress(quiet: bool) -> Progress:
    """Return a progress bar for stderr, shown on terminals: hours done, real-time factor and remaining time."""

    @contextmanager
    def shown(what: str, seconds: float | None) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

        def hours(task: Task) -> str:
            if not task.total:
                return f"{task.completed:.0f}"
            speed = task.completed / task.elapsed if task.elapsed else 0.0
            return f"{duration(task.completed)} of {duration(task.total)}  {speed:.0f}x real time"

        class Hours(TextColumn):
            def render(self, task: Task) -> Any:
                return hours(task)

        console = Console(stderr=True)
        columns = (TextColumn(what), BarColumn(), Hours(""), TimeRemainingColumn(elapsed_when_finished=True))
        with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
            task = bar.add_task(what, total=seconds or None)
            yield lambda done: bar.advance(task, done)

    return shown


def report(summary: Summary, output: Path, quiet: bool, as_json: bool) -> int:
    """Print the result of a run: JSON on stdout, or lines on stderr. Return the exit code, 1 if nothing succeeded."""
    if as_json:
        print_json(
            {
                "output": str(output),
                "recordings": summary.rows,
                "failed": summary.failed,
                "failures": None if summary.failures is None else str(summary.failures),
                "passed_over": dict(summary.passed_over),
                "remarked": summary.remarked,
                "hours": summary.seconds / HOUR,
                "shards": summary.shards,
                "elapsed": summary.elapsed,
                "speed": summary.speed,
                "codebooks": summary.codebooks,
            }
        )
    else:
        _say(summary, output, quiet)
    if summary.failures is None or summary.rows:
        return 0
    with summary.failures.open() as lines:
        first = parse_object(next(lines))
    reason = f"{first['path']}: {first['error']}"
    click.echo(
        f"error: all {summary.failed} recordings failed. First failure: {reason}. All failures: {summary.failures}", err=True
    )
    return 1


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / MINUTE:.1f} min" if seconds < HOUR else f"{seconds / HOUR:.2f} h"


def _say(summary: Summary, output: Path, quiet: bool) -> None:
    rows, shards = counted(summary.rows, "recording"), counted(summary.shards, "shard")
    say(f"{output}: {rows}, {duration(summary.seconds)}, in {shards}", quiet)
    if summary.new_seconds:
        speed = f"{summary.speed:.{0 if summary.speed >= TEN else 1}f}x real time"
        say(f"{duration(summary.new_seconds)} in {duration(summary.elapsed)}, {speed}", quiet)
    elif summary.rows:
        say("nothing was left to do", quiet)
    if summary.codebooks:
        shares = " ".join(f"{share:.0%}" for share in summary.codebooks)
        say(f"codebook entries used: {shares}", quiet)
    if summary.failures:
        say(f"{summary.failed} failed; reasons in {summary.failures}", quiet)
    if summary.remarked:
        has = "has" if summary.remarked == 1 else "have"
        say(f"{counted(summary.remarked, 'recording')} {has} remarks, in the column `remarks`", quiet)
    if summary.remark:
        say(summary.remark, quiet)
