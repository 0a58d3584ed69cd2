"""Memory and loading time of a whole SNAC model and of its halves, each in a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import torch
from rich.table import Table
from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core.nn.kernels.backends import load_cpu_backend
from blazen_codec_core.weights import RandomWeights
from blazen_codec_snac.backend import SnacBackend
from blazen_codec_snac.checkpoint import to_published

PARTS = ("whole", "decoder", "encoder")
MIB = 2**20


def run(name: str, rounds: int) -> list[dict[str, Any]]:
    """Measure with random weights in files of both kinds; see `benchmarks halves --help`."""
    spec = bc.Registry().find(name).spec
    state = to_published(SnacBackend(spec, bc.LoadOptions()).build(RandomWeights(0)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        safe, pickled = Path(folder) / "model.safetensors", Path(folder) / "model.bin"
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, safe)
        torch.save(state, pickled)
        for path in (safe, pickled):
            for parts in PARTS:
                command = [sys.executable, "-m", "benchmarks.halves", name, str(path), parts]
                runs = [
                    json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(rounds)
                ]
                medians = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
                rows.append({"codec": name, "file": path.suffix, "parts": parts, **medians})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Halves of a model, MiB and seconds")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def measure(name: str, weights: str, parts: str) -> dict[str, float]:
    """Load in this process; return the memory above that before, and the time."""
    load_cpu_backend()  # imports numba
    process = psutil.Process()
    before = process.memory_info().rss / MIB
    codec = bc.load(name, weights=weights, device="cpu", parts=None if parts == "whole" else parts)  # type: ignore[arg-type]
    started = time.perf_counter()
    codec.load()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"loaded_mib": process.memory_info().rss / MIB - before, "peak_mib": peak - before, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
