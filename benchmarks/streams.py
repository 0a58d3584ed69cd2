"""Many decoder streams on one model: a pool against a session for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from rich.table import Table

import blazen_codec_core as bc

from .threads import Say


def run(names: Sequence[str], counts: Sequence[int], seconds: float, rounds: int, threads: int, say: Say) -> list[dict[str, Any]]:
    """Measure in closed loops: every stream gets its next tile as soon as the step before has ended."""
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in names:
            codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
            pcm = 0.1 * np.random.default_rng(0).standard_normal((codec.channels, int(seconds * codec.sample_rate)))
            tokens = codec.encode(pcm.astype(np.float32), codec.sample_rate)
            for count in counts:
                made: dict[str, list[list[float]]] = {"pool": [], "sessions": []}
                for number in range(rounds + 1):
                    for kind, measure in (("pool", _pool), ("sessions", _sessions)):
                        steps = measure(codec, tokens, count)
                        if number:  # the first round warms up
                            made[kind].append(steps)
                for kind, runs in made.items():
                    steps = [step for one in runs for step in one]
                    listeners = count * tokens.seconds / median(sum(one) for one in runs) / threads
                    worst = quantiles(steps, n=100)[-1]
                    row = {"codec": name, "streams": count, "kind": kind, "listeners_a_core": listeners}
                    rows.append({**row, "step_p50_ms": 1000 * median(steps), "step_p99_ms": 1000 * worst})
                say(f"{name}, {count} streams: {rows[-2]['listeners_a_core'] / rows[-1]['listeners_a_core']:.2f} times as many")
    finally:
        torch.set_num_threads(before)
    return rows


def _pool(codec: bc.DynCodecProvider, tokens: bc.CodecTokens, count: int) -> list[float]:
    """Seconds of each step of a pool."""
    steps = []
    with codec.decoder_pool(count) as pool:
        streams = [pool.open() for _ in range(count)]
        for part in tokens.parts(codec.spec.block_frames):
            start = time.perf_counter()
            for stream in streams:
                stream.push(part)
            pool.step()
            steps.append(time.perf_counter() - start)
    return steps


def _sessions(codec: bc.DynCodecProvider, tokens: bc.CodecTokens, count: int) -> list[float]:
    """Seconds of each round of pushes to sessions."""
    sessions, steps = [codec.decoder_session(tile_frames=codec.spec.block_frames) for _ in range(count)], []
    for part in tokens.parts(codec.spec.block_frames):
        start = time.perf_counter()
        for session in sessions:
            session.push(part)
        steps.append(time.perf_counter() - start)
    return steps


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of the rows."""
    table = Table(
        title="Decoder streams in tiles of one block: listeners in real time a core, and milliseconds of a step for all"
    )
    for column in ("codec", "streams", "kind", "listeners a core", "step p50", "p99"):
        table.add_column(column)
    for row in rows:
        figures = (f"{row[key]:.1f}" for key in ("listeners_a_core", "step_p50_ms", "step_p99_ms"))
        table.add_row(row["codec"], str(row["streams"]), row["kind"], *figures)
    return table
