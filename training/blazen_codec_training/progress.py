"""Progress bar of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Show = Callable[[int, Mapping[str, float]], None]


@contextmanager
def progress(step: int, steps: int, quiet: bool = False) -> Iterator[Show]:
    """Show a bar on stderr on a terminal; yield a function that takes the steps done and the losses."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as shown:
        task = shown.add_task("training", total=steps, completed=step, state="")

        def show(done: int, losses: Mapping[str, float]) -> None:
            state = f"log-mel {losses['log_mel']:.3f}" if "log_mel" in losses else ""
            shown.update(task, completed=done, state=state)

        yield show
