"""Dataset benchmark: speed of `tokenize`, relative to the model on audio in memory."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import psutil
import soundfile
from rich.table import Table

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import plan, run_state
from blazen_codec_core.dataset.executors import processes
from blazen_codec_core.dataset.items import Fault
from blazen_codec_core.dataset.jobs.base import Job
from blazen_codec_core.dataset.run_state import ShardResult
from blazen_codec_core.transcode import Recording

from . import timing

RATES, FORMATS = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000), ("wav", "flac", "ogg", "mp3")
LONG_FILES = (1200.0, 600.0, 300.0, 180.0, 120.0)
"""Duration of the longest recordings in seconds; the others are log-uniform from 0.05 s to a minute."""


def generate(folder: Path, files: int, broken: int) -> None:
    """Generate recordings of many lengths, rates, channels and formats; the last ones are broken."""
    rng = np.random.default_rng(0)
    sounds = {rate: np.stack([voice(10.0, rate, channel) for channel in range(2)], 1) for rate in RATES}
    for number in range(files):
        rate, suffix, channels = int(rng.choice(RATES)), str(rng.choice(FORMATS)), int(rng.integers(1, 3))
        seconds = LONG_FILES[number] if number < len(LONG_FILES) else float(np.exp(rng.uniform(np.log(0.05), np.log(60))))
        path = folder / f"{number % 40:02d}" / f"{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= files - broken:
            path.write_bytes(b"RIFF, but not really")
            continue
        sound = sounds[rate][:, :channels]
        with soundfile.SoundFile(path, "w", rate, channels) as file:
            for left in range(int(seconds * rate), 0, -len(sound)):
                file.write(sound[:left])


@dataclass(frozen=True)
class Alone(Job):
    """Job that encodes shards from memory with `encode_batch`. `took` is encoding time only; `seconds` counts streams."""

    out: Path
    verb: ClassVar[str] = "measuring"

    def open(self, codec: bc.DynCodecProvider) -> Any:
        planned = plan.read(self.out / run_state.FOLDER)
        assert planned is not None

        def work(number: int) -> ShardResult:
            audio = []
            for item in planned.items(number):
                if isinstance(item, Fault):
                    continue
                try:
                    audio.append(Recording(lambda item=item: item.open(planned.root), codec).whole())  # type: ignore[misc]
                except bc.CodecError:
                    continue
            started = time.perf_counter()
            codec.encode_batch(audio, codec.sample_rate)
            took = time.perf_counter() - started
            return ShardResult(number, len(audio), sum(pcm.size for pcm in audio) / codec.sample_rate / codec.channels, took)

        return work


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Peak memory in MiB of this process (`parent`) and of any child (`worker`)."""
    peaks, over = {"parent": 0.0, "worker": 0.0}, threading.Event()
    this = psutil.Process()

    def look() -> None:
        while not over.wait(0.2):
            for process in (this, *this.children(recursive=True)):
                try:
                    role = "parent" if process == this else "worker"
                    peaks[role] = max(peaks[role], process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def run(name: str, files: int, broken: int, workers: int, device: str) -> dict[str, Any]:
    """Tokenize a generated dataset with `workers` processes, and compare with the same processes on audio in memory."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out"
        generate(source, files, broken)
        weights = None if name.endswith("_tiny") else "random:0"
        codec = bc.load(name, device=device, weights=weights)
        if codec.device != "cpu":
            codec.encode_batch([timing.voices(codec, seconds) for seconds in (0.3, 1.0, 4.0)], codec.sample_rate)  # compiles
        started = time.perf_counter()
        with peak_memory() as peaks:
            summary = bc.tokenize_dataset(source, codec, out, executor=bc.Executor(workers=workers))
        elapsed = time.perf_counter() - started
        streams = sum(tokens.seconds * tokens.streams for _, tokens in bc.read_tokens(out))
        alone = Alone(codec.name, codec.options, out)
        done = list(processes.run(alone, range(summary.shards), [codec.device] * workers, 1 if codec.device == "cpu" else None))
        own = workers * sum(one.seconds for one in done) / sum(one.took for one in done)
    return {
        "codec": name,
        "files": files,
        "failed": summary.failed,
        "hours": summary.seconds / 3600,
        "stream_hours": streams / 3600,
        "elapsed": elapsed,
        "planning": elapsed - summary.elapsed,
        "speed": streams / elapsed,
        "alone": own,
        "share": streams / elapsed / own,
        "worker_mib": peaks["worker"],
        "parent_mib": peaks["parent"],
    }


def short(name: str, files: int = 2_000, seconds: float = 0.02) -> dict[str, Any]:
    """Tokenize `files` short recordings in this process; measure CPU seconds per file, including reading and writing."""
    return {"codec": name, "files": files, "seconds": seconds, **_tokenize(name, [seconds] * files)}


def clips(name: str, files: int = 64) -> dict[str, Any]:
    """Tokenize `files` recordings of 2 to 15 s in this process as one batch and one by one; measure as `short` does."""
    lengths = list(np.random.default_rng(0).uniform(2, 15, files))
    together = _tokenize(name, lengths)
    with mock.patch.object(bc.DynCodecProvider, "short_samples", 0):
        alone = _tokenize(name, lengths)
    ratio = alone["cpu_ms_a_file"] / together["cpu_ms_a_file"]
    return {"codec": name, "files": files, "seconds": sum(lengths), **together, "one_by_one_over_this": ratio}


def _tokenize(name: str, lengths: Sequence[float]) -> dict[str, Any]:
    """Tokenize recordings of these lengths in seconds in this process."""
    codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
    for length in (lengths[0], 1.0):
        codec.encode_batch([voice(length, codec.sample_rate)] * 2, codec.sample_rate)
    rng, files = np.random.default_rng(0), len(lengths)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        for number, seconds in enumerate(lengths):
            noise = 0.2 * rng.standard_normal(int(seconds * codec.sample_rate))
            soundfile.write(source / f"{number:05d}.wav", noise, codec.sample_rate)
        cpu, started = time.process_time(), time.perf_counter()
        summary = bc.tokenize_dataset(source, codec, out, executor=bc.Executor(workers=1))
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
    return {"shards": summary.shards, "cpu_ms_a_file": 1000 * cpu / files, "ms_a_file": 1000 * elapsed / files}


def table(
    rows: list[dict[str, Any]], title: str = "Datasets: stream seconds a second, with files and shards and without"
) -> Table:
    table = Table(title=title)
    columns = list(rows[0])
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table
