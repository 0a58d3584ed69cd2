"""Progress bars of commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..transcode import Advance

LONG = 20.0
"""Least duration in seconds of audio for which a progress bar is shown."""


@contextmanager
def progress(what: str, seconds: float | None, quiet: bool) -> Iterator[Advance]:
    """Show a bar on stderr for long work on a terminal; yield a function that adds seconds done."""
    if quiet or (seconds is not None and seconds < LONG):
        yield lambda _: None
        return
    with bar(what, seconds, quiet, " s") as advance:
        yield advance


@contextmanager
def bar(what: str, total: float | None, quiet: bool, unit: str = "") -> Iterator[Advance]:
    """Show a bar on stderr on a terminal; yield a function that adds to what is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn(f"{{task.completed:.0f}}{unit}" if total is None else f"{{task.completed:.0f}}/{{task.total:.0f}}{unit}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.advance(task, done)
