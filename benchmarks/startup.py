"""Start-up times of the package and its command line, as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from . import timing


def run(rounds: int) -> dict[str, Any]:
    """Measure whole processes in seconds; see `benchmarks startup --help`."""
    programs = {
        "pass": [sys.executable, "-c", "pass"],
        "pydantic": [sys.executable, "-c", "from pydantic import BaseModel"],
        "core": [sys.executable, "-c", "import blazen_codec_core as bc; bc.load"],
        "list": [str(Path(sys.executable).parent / "blazen-codec"), "list"],
        "torch": [sys.executable, "-c", "import torch"],
        "load": [sys.executable, "-c", "import blazen_codec_core as bc; bc.load('snac_tiny').load()"],
    }
    work = {name: partial(subprocess.run, program, check=True, capture_output=True) for name, program in programs.items()}
    medians = {name: statistics.median(seconds) for name, seconds in timing.interleaved(work, rounds).items()}
    # Importing pydantic starts an interpreter too, so its median already is that of `pass` plus the import.
    return {**medians, "list_over_pydantic": medians["list"] / medians["pydantic"]}


def table(result: dict[str, Any]) -> Table:
    table = Table(title="Processes from start to exit, seconds")
    for name in result:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(*(f"{value:.3f}" for value in result.values()))
    return table
