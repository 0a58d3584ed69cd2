"""Threads: what they gain on an idle machine, and what they cost beside busy processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from rich.table import Table

import blazen_codec_core as bc

from . import timing

EMBEDDED = ("snac_tiny", "encodec_tiny", "dac_tiny")
Say = Callable[[str], object]


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Context beside processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def scaling(names: Sequence[str], counts: Sequence[int], seconds: float, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Measure encoding and decoding with each number of threads, interleaved."""
    rows = []
    for name in names:
        for what, work in _work(name, seconds).items():
            timings = _interleaved(work, counts, rounds)
            medians = {count: statistics.median(timings[count]) for count in counts}
            speedup = {count: medians[1] / medians[count] for count in counts}
            say(f"{name} {what}: {', '.join(f'{count} threads {ratio:.2f} ×' for count, ratio in speedup.items())}")
            rows.append({"codec": name, "what": what, "seconds": medians, "speedup": speedup})
    return rows


def contention(names: Sequence[str], seconds: float, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Measure the default number of threads relative to one, alone and beside a busy process for each core."""
    rows = []
    default = torch.get_num_threads()
    for name in names:
        for what, work in _work(name, seconds).items():
            for busy in (0, os.cpu_count() or 1):
                with busy_processes(busy):
                    timings = _interleaved(work, (1, default), rounds)
                one, several = (statistics.median(timings[count]) for count in (1, default))
                row = {"codec": name, "what": what, "busy": busy, "one": one, "default": several, "ratio": several / one}
                say(f"{name} {what}, {busy} busy processes: {default} threads take {row['ratio']:.2f} of the time of one")
                rows.append(row)
    return rows


def _work(name: str, seconds: float) -> dict[str, Callable[[], object]]:
    codec = bc.load(name, device="cpu", weights="random:0")
    pcm = timing.voices(codec, seconds)
    tokens = codec.encode(pcm, codec.sample_rate)
    return {"encode": lambda: codec.encode(pcm, codec.sample_rate), "decode": lambda: codec.decode(tokens)}


def _interleaved(work: Callable[[], object], counts: Sequence[int], rounds: int) -> dict[int, list[float]]:
    """Time the work with each number of threads, in seconds."""
    before = torch.get_num_threads()

    def with_threads(count: int) -> None:
        torch.set_num_threads(count)
        work()

    try:
        timings = timing.interleaved({str(count): partial(with_threads, count) for count in counts}, rounds)
    finally:
        torch.set_num_threads(before)
    return {count: timings[str(count)] for count in counts}


def scaling_table(rows: list[dict[str, Any]]) -> Table:
    counts = list(rows[0]["seconds"])
    table = Table(title="Seconds of compute, and how many times as fast as one thread")
    for column in ("codec", "", *(f"{count} threads" for count in counts)):
        table.add_column(column)
    for row in rows:
        cells = [f"{row['seconds'][count]:.3f} ({row['speedup'][count]:.2f} ×)" for count in counts]
        table.add_row(row["codec"], row["what"], *cells)
    return table


def contention_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Seconds of compute with one thread and with the default number, beside busy processes")
    for column in ("codec", "", "busy processes", "one thread", "default", "default / one"):
        table.add_column(column)
    for row in rows:
        cells = (f"{row['one']:.3f}", f"{row['default']:.3f}", f"{row['ratio']:.2f}")
        table.add_row(row["codec"], row["what"], str(row["busy"]), *cells)
    return table
