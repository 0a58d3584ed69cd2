"""Costs of large datasets beyond the model: measured on one machine, and simulated for clusters."""

from __future__ import annotations

import dataclasses
import heapq
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from rich.table import Table

import blazen_codec_core as bc
from blazen_codec_core.audio import AudioReader
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import plan, run_state
from blazen_codec_core.dataset.executors.processes import cores
from blazen_codec_core.dataset.items import AudioItem
from blazen_codec_core.dataset.prefetch import map_in_threads
from blazen_codec_core.dataset.run_state import ShardResult
from blazen_codec_core.dataset.sources import Source, find
from blazen_codec_core.transcode import Recording

ROUND_TRIP = 0.02
"""Latency in seconds of remote storage, in the measurement of headers."""
START_UP = 15.0
"""Seconds from starting a worker to its first shard."""


class RemoteItem(AudioItem):
    """A recording on slow storage."""

    def seconds(self, root: Path) -> float:
        time.sleep(ROUND_TRIP)
        return 5.0


def planning(counts: tuple[int, ...] = (10_000, 100_000, 400_000)) -> list[dict[str, Any]]:
    """Plan lists with `count` items of known duration; measure items per second and memory above the start."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            listed = folder / "list.jsonl"
            with listed.open("w") as lines:
                lines.writelines(
                    json.dumps({"path": f"{n // 1000:06d}/{n:09d}.flac", "duration": 5.0}) + "\n" for n in range(count)
                )
            process, source = psutil.Process(), find(listed)
            before, started = process.memory_info().rss, time.perf_counter()
            planned = plan.make(folder, source, shard_seconds=None, planned=lambda _: None)
            took = time.perf_counter() - started
            held = (process.memory_info().rss - before) / 2**20
            again = time.perf_counter()
            plan.digest_of(find(listed).entries)
            listing = time.perf_counter() - again
        rows.append(
            {"items": count, "shards": len(planned.cuts), "items_a_second": count / took, "mib": held, "again": count / listing}
        )
    return rows


def headers(count: int = 4_000) -> float:
    """Measure recordings per second whose headers are read from storage with a latency of `ROUND_TRIP`."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        items: Iterator[AudioItem] = (RemoteItem(str(number), f"{number}.wav") for number in range(count))
        plan.make(Path(folder), Source(Path(folder), items), shard_seconds=None, planned=lambda _: None)
        return count / (time.perf_counter() - started)


def journal(count: int = 500) -> float:
    """Measure lines per second; each is synced to disk before the next."""
    with tempfile.TemporaryDirectory() as folder, run_state.open_books(Path(folder)) as kept:
        started = time.perf_counter()
        for number in range(count):
            kept.note(ShardResult(number, 100, 3600.0, 60.0, (), ("eJxjYBBggAEmKO0AxAoMHGA2hwMjTFoBiBmhyjnAipA=",) * 8))
        return count / (time.perf_counter() - started)


def reading(seconds: float = 20.0, files: int = 24) -> list[dict[str, Any]]:
    """Measure seconds of audio per second and channel that threads read, decompress and resample to 24 kHz for a GPU."""
    codec, rows = bc.load("snac_24khz", device="cpu", weights="random:0"), []
    for rate, suffix in ((24_000, "wav"), (44_100, "wav"), (44_100, "flac"), (44_100, "mp3"), (48_000, "ogg")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"one.{suffix}"
            soundfile.write(path, voice(seconds, rate), rate)
            row: dict[str, Any] = {"file": f"{suffix}, {rate / 1000:g} kHz"}
            for threads in (1, cores()):
                started = time.perf_counter()
                for _ in map_in_threads(
                    lambda path: Recording(lambda: AudioReader(path), codec).whole(), [path] * files, threads
                ):
                    pass
                row[f"{threads} thread{'s' * (threads > 1)}"] = files * seconds / (time.perf_counter() - started)
        rows.append(row)
    return rows


class InstantNetwork:
    """A network that encodes in no time; its tokens are zeros."""

    def __init__(self, network: Any, strides: tuple[int, ...]) -> None:
        self._network, self._strides = network, strides

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode_step(self, x: Any, state: Any, last: bool) -> list[Any]:
        frames = self._network.frames_encoded(x.shape[1], last)
        return [x.new_zeros(x.shape[0], frames // stride) for stride in self._strides]


def around(lengths: tuple[float, ...] = (2.0, 10.0, 30.0), total: float = 7200.0) -> list[dict[str, Any]]:
    """Measure `tokenize` without the network, in batches as on a GPU.

    Measures recordings per second, and the time that each occupies the thread that also runs the network.
    """
    codec, rows = bc.load("snac_24khz", device="cpu", weights="random:0"), []
    backend = codec.backend
    backend._loaded = dataclasses.replace(backend.loaded(), network=InstantNetwork(backend.loaded().network, codec.spec.strides))
    backend.streams_per_batch, type(backend).max_frames_per_step = 32, 2**25
    for length in lengths:
        with tempfile.TemporaryDirectory() as folder:
            source, out, count = Path(folder) / "in", Path(folder) / "out", int(total / length)
            source.mkdir()
            soundfile.write(source / "0.wav", voice(length, codec.sample_rate), codec.sample_rate)
            for number in range(1, count):
                (source / f"{number}.wav").symlink_to(source / "0.wav")
            started, used = time.perf_counter(), time.thread_time()
            bc.tokenize_dataset(source, codec, out, shard_minutes=60, executor=bc.Executor(workers=1))
            took, used = time.perf_counter() - started, time.thread_time() - used
        rows.append({"seconds": length, "recordings": count / took, "times": total / took, "thread_ms": 1000 * used / count})
    return rows


def by_length(
    name: str, lengths: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0, 30.0, 120.0), total: float = 240.0
) -> dict[str, float]:
    """Measure seconds of audio per second of compute on one core, for recordings of about each length in seconds."""
    import torch

    torch.set_num_threads(1)
    codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
    rng, speeds = np.random.default_rng(0), {}
    sound = np.stack([voice(lengths[-1] * 1.3, codec.sample_rate, channel) for channel in range(codec.channels)])
    codec.encode(sound[:, : codec.sample_rate], codec.sample_rate)
    for length in lengths:
        drawn = [length * rng.uniform(0.7, 1.3) for _ in range(max(2, int(total / length)))]
        batch = [sound[:, : int(seconds * codec.sample_rate)] for seconds in drawn]
        started = time.perf_counter()
        codec.encode_batch(batch, codec.sample_rate)
        speeds[f"{length:g} s"] = sum(drawn) / (time.perf_counter() - started)
    return speeds


def simulate(
    hours: float,
    workers: int,
    speed: float,
    *,
    longest: float = 0.0,
    slow: float = 0.0,
    lost: int = 0,
    shard_hours: float | None = None,
    longest_first: bool = True,
) -> dict[str, float]:
    """Simulate a run in which each worker takes the next shard when it finishes one.

    Args:
        hours: Hours of audio, in recordings much shorter than a shard.
        speed: Seconds of audio per second and worker.
        longest: Hours of one long recording among them.
        slow: Fraction of workers that are half as fast.
        lost: Number of workers that are lost over the run, with their current shard.
        shard_hours: Hours per shard; as planned by default.
        longest_first: Schedule the long recording first, as the engines do, or else last.

    Returns:
        Duration in hours, and utilization of the workers.
    """
    target = shard_hours or min(plan.LONGEST, max(plan.SHORTEST, hours * 3600 / plan.SHARDS)) / 3600
    shards = [target] * round((hours - longest) / target) + [longest] * (longest > 0)
    if longest_first:
        shards.sort(reverse=True)
    speeds = np.where(np.arange(workers) < round(slow * workers), speed / 2, speed)
    ideal = hours / speeds.sum()
    leaving = {workers - 1 - number: ideal * (number + 1) / (lost + 1) for number in range(lost)}
    free = [(START_UP / 3600, worker) for worker in range(workers)]
    heapq.heapify(free)
    left, end = list(reversed(shards)), 0.0
    while left:
        now, worker = heapq.heappop(free)
        shard = left.pop()
        done = now + shard / speeds[worker]
        if worker in leaving and done > leaving[worker]:
            left.append(shard)  # repeated by the next free worker
            continue
        end = max(end, done)
        heapq.heappush(free, (done, worker))
    return {"hours": end, "share": ideal / end}


SCENES: dict[str, dict[str, Any]] = {
    "equal workers": {},
    "equal workers, shards of 10 h": {"shard_hours": 10.0},
    "one recording of 10 h": {"longest": 10.0},
    "one recording of 10 h, started last": {"longest": 10.0, "longest_first": False},
    "one worker in ten at half speed": {"slow": 0.1},
    "a quarter of the workers lost": {"lost": -4},
}


def simulations(speed: float) -> list[dict[str, Any]]:
    """Simulate runs of 1 000 and 100 000 hours on 8 and 64 workers, including their start-up."""
    rows = []
    for scene, asked in SCENES.items():
        for hours in (1_000.0, 100_000.0):
            for workers in (8, 64):
                settings = {**asked, "lost": workers // 4} if "lost" in asked else asked
                rows.append({"scene": scene, "audio": hours, "workers": workers, **simulate(hours, workers, speed, **settings)})
    return rows


def run(names: tuple[str, ...], speed: float) -> dict[str, Any]:
    return {
        "planning": planning(),
        "headers": headers(),
        "journal": journal(),
        "reading": reading(),
        "around": around(),
        "by_length": {name: by_length(name) for name in names},
        "speed": speed,
        "simulations": simulations(speed),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    plans = Table(title="Plans of lists with durations")
    for column in ("items", "shards", "items a second", "MiB", "listing again, items a second"):
        plans.add_column(column, justify="right")
    for row in result["planning"]:
        plans.add_row(*(f"{value:,.0f}" for value in row.values()))
    others = Table(title="Single items")
    others.add_column("what")
    others.add_column("a second", justify="right")
    others.add_row(f"headers, from storage with a latency of {ROUND_TRIP * 1000:.0f} ms", f"{result['headers']:,.0f}")
    others.add_row("lines of the journal", f"{result['journal']:,.0f}")
    read = Table(title="Seconds of audio a second, read and resampled to 24 kHz")
    for column in result["reading"][0]:
        read.add_column(column, justify="left" if column == "file" else "right")
    for row in result["reading"]:
        read.add_row(*(f"{value:,.0f}" if isinstance(value, float) else value for value in row.values()))
    rest = Table(title="tokenize without the network, in batches")
    for column in ("seconds per recording", "recordings a second", "seconds of audio a second", "ms of the network's thread"):
        rest.add_column(column, justify="right")
    for row in result["around"]:
        rest.add_row(f"{row['seconds']:g}", f"{row['recordings']:,.0f}", f"{row['times']:,.0f}", f"{row['thread_ms']:.2f}")
    lengths = Table(title="Seconds of audio per second and core, by length of the recordings")
    lengths.add_column("model")
    for length in next(iter(result["by_length"].values())):
        lengths.add_column(length, justify="right")
    for name, speeds in result["by_length"].items():
        lengths.add_row(name, *(f"{speed:.0f}" for speed in speeds.values()))
    runs = Table(title=f"Simulated runs, workers at {result['speed']:g} times real time")
    for column in ("scene", "audio, h", "workers", "duration, h", "utilization"):
        runs.add_column(column, justify="left" if column == "scene" else "right")
    for row in result["simulations"]:
        runs.add_row(row["scene"], f"{row['audio']:,.0f}", str(row["workers"]), f"{row['hours']:.3f}", f"{row['share']:.1%}")
    return [plans, others, read, rest, lengths, runs]
