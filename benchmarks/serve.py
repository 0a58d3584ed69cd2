"""Load on a server: streams that begin by a Poisson process, and listeners in real time, against the sliding window."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import Any

import numpy as np
import psutil
import uvicorn
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

import blazen_codec_core as bc
from blazen_codec_core.pools import DecoderPool, DecoderPoolOptions, PoolSettings, SessionPool
from blazen_codec_core.protocol import Open, TokenGroups
from blazen_codec_core.provider import DynCodecProvider
from blazen_codec_core.server import door
from blazen_codec_core.server.api import Access, ClientLimits, CodecService, ServiceLimits
from blazen_codec_core.server.app import application

from .streams import AHEAD, WINDOW, Listener
from .threads import Say

UTTERANCE = 4.0
"""Seconds of audio of a stream."""
TOLERATED = 1.0
"""Percent of parts that may come too late while listeners count as served."""
TOGETHER = 16
"""Streams whose CPU time is measured."""
MOST = 512
"""Most streams of a server."""
END = '{"type": "end"}'
KINDS = ("pool", "window")


class WindowSession:
    """Decoder that decodes the last `WINDOW` blocks anew for each block, and plays the second of them, as servers do."""

    def __init__(self, codec: DynCodecProvider) -> None:
        self._codec, self._blocks = codec, list[bc.CodecTokens]()
        self._samples = codec.spec.block_frames * codec.spec.hop_length
        self._pushed = 0

    def push(self, tokens: bc.CodecTokens) -> np.ndarray:
        """Take a block; return the audio of the second in the window, and that of the first window's first."""
        self._blocks = [*self._blocks[1 - WINDOW :], tokens]
        self._pushed += 1
        if self._pushed < WINDOW:
            return np.zeros((self._codec.channels, 0), np.float32)
        return self._decode()[:, 0 if self._pushed == WINDOW else self._samples : 2 * self._samples]

    def finish(self) -> np.ndarray:
        """Return the audio of the last blocks."""
        return self._decode()[:, 2 * self._samples if self._pushed >= WINDOW else 0 :]

    def close(self) -> None:
        """Do nothing."""

    def _decode(self) -> np.ndarray:
        return self._codec.decode(bc.CodecTokens.concat(self._blocks))


class WindowProvider(DynCodecProvider):
    """Codec whose pools decode sliding windows."""

    def decoder_pool(self, max_streams: int = 64, **options: Any) -> DecoderPool:
        spec = self.spec
        asked: DecoderPoolOptions = {"max_queue": options.get("max_queue", 60.0)}
        settings = PoolSettings.of(spec, max_streams, "lowest", None, None, asked["max_queue"], False)
        return SessionPool(
            self.backend,
            settings,
            lambda: WindowSession(self),  # type: ignore[arg-type,return-value]
            lambda tokens: list(tokens.parts(spec.block_frames)),
            lambda tokens: tokens.seconds,
            lambda pcm: pcm.shape[1] / spec.sample_rate,
        )


def load(kind: str, name: str) -> DynCodecProvider:
    """Load a codec, with random weights unless its own are embedded."""
    codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
    return codec if kind == "pool" else WindowProvider(codec._handle, codec._restore)


def serve(kind: str, name: str, started: Connection) -> None:
    """Serve a codec in this process; send the port, once it is ready."""
    codec = load(kind, name)
    codec.load()
    limits = ServiceLimits(streams=MOST, idle_seconds=600, stall_seconds=600)
    service = CodecService((name,), limits=limits, access=Access(limits=ClientLimits(streams=MOST)), provide=lambda _: codec)
    config = door.config(application(None, None, service), connections=2 * MOST)
    listening = socket.create_server(("127.0.0.1", 0), backlog=MOST)
    started.send(listening.getsockname()[1])
    uvicorn.Server(config).run([listening])


@dataclass
class Load:
    """Results of some streams.

    Attributes:
        firsts: Seconds from the beginning of a stream to its first audio.
        listeners: The listeners of the streams.
        lost: Streams that were refused or broke.
        most: Most streams at once.
    """

    firsts: list[float] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    lost: int = 0
    open: int = 0
    most: int = 0

    @property
    def underruns(self) -> float:
        """Percent of parts that came after the audio before had been played."""
        parts = sum(listener.parts for listener in self.listeners)
        return 100 * sum(listener.underruns for listener in self.listeners) / max(1, parts)


class Source:
    """Source of tokens as a language model samples them: blocks of one utterance, each at its time, `AHEAD` of real time."""

    def __init__(self, codec: DynCodecProvider, name: str) -> None:
        spec = codec.spec
        random = np.random.default_rng(0)
        frames = int(UTTERANCE * spec.frame_rate) // spec.block_frames * spec.block_frames
        codes = [random.integers(0, spec.codebook_size, frames // stride) for stride in spec.strides[: spec.used_codebooks]]
        groups = TokenGroups(spec, spec.used_codebooks)
        tokens = bc.CodecTokens.from_codes(spec, codes)
        self.blocks = [groups.pack(part) for part in tokens.parts(spec.block_frames)]
        self.seconds = spec.block_frames / spec.frame_rate
        self.bytes_a_second = 2 * spec.channels * spec.sample_rate
        self.open = Open(codec=name, direction="decode", sample_format="pcm16").model_dump_json()

    async def stream(self, url: str, load: Load, random: np.random.Generator) -> None:
        """Open a stream, send the blocks as they are sampled, and listen."""
        began, listener = time.perf_counter(), Listener()
        load.open += 1
        load.most = max(load.most, load.open)
        try:
            async with connect(url, compression=None, max_size=None, open_timeout=60, ping_interval=None) as socket:
                await socket.send(self.open)
                sending = asyncio.create_task(self._send(socket, random))
                is_complete, first = False, None
                async for message in socket:
                    now = time.perf_counter()
                    if isinstance(message, bytes):
                        first = first or now - began
                        listener.hear(now, len(message) / self.bytes_a_second, 0.0)
                    else:
                        is_complete = is_complete or '"ended"' in message
                await sending
                if not is_complete or first is None:
                    load.lost += 1
                else:
                    load.firsts.append(first)
                    load.listeners.append(listener)
        except (OSError, WebSocketException, TimeoutError):
            load.lost += 1
        finally:
            load.open -= 1

    async def _send(self, socket: Any, random: np.random.Generator) -> None:
        when = time.perf_counter()
        for block in self.blocks:
            when += float(random.exponential(self.seconds / AHEAD))
            await asyncio.sleep(max(0.0, when - time.perf_counter()))
            await socket.send(block)
        await socket.send(END)


async def arrivals(source: Source, url: str, rate: float, seconds: float) -> Load:
    """Streams that begin by a Poisson process, whether others have ended or not."""
    load, random, tasks = Load(), np.random.default_rng(1), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        tasks.append(asyncio.create_task(source.stream(url, load, np.random.default_rng(len(tasks)))))
        await asyncio.sleep(float(random.exponential(1 / rate)))
    await asyncio.gather(*tasks)
    return load


async def listeners(source: Source, url: str, count: int, seconds: float) -> Load:
    """A number of listeners, each of whom begins another utterance after one."""
    load, end = Load(), time.perf_counter() + seconds

    async def listen(number: int) -> None:
        random = np.random.default_rng(number)
        await asyncio.sleep(float(random.uniform(0, UTTERANCE)))
        while time.perf_counter() < end:
            await source.stream(url, load, random)

    await asyncio.gather(*(listen(number) for number in range(count)))
    return load


async def listeners_a_core(source: Source, url: str, server: psutil.Process) -> float:
    """Seconds of audio for a second of the server's CPU time, for `TOGETHER` streams that begin together, late or not."""

    def used() -> float:
        times = server.cpu_times()
        return times.user + times.system

    load, before = Load(), used()
    await asyncio.gather(*(source.stream(url, load, np.random.default_rng(number)) for number in range(TOGETHER)))
    return sum(listener.received for listener in load.listeners) / (used() - before)


async def capacity(source: Source, url: str, seconds: float, say: Say) -> int:
    """Most listeners of whose parts at most `TOLERATED` percent come too late, to an eighth."""

    async def is_served(count: int) -> bool:
        load = await listeners(source, url, count, seconds)
        say(f"  {count} listeners: {load.underruns:.2f} % too late, {load.lost} lost")
        return load.underruns <= TOLERATED and not load.lost

    served, failed = 0, 4
    while failed <= MOST and await is_served(failed):
        served, failed = failed, 2 * failed
    while failed - served > max(1, served // 8):
        middle = (served + failed) // 2
        served, failed = (middle, failed) if await is_served(middle) else (served, middle)
    return served


def run(names: Sequence[str], rates: Sequence[float], seconds: float, say: Say) -> list[dict[str, Any]]:
    """Measure each codec, in a pool and as sliding windows behind the same server, which has a process of its own."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for name in names:
        for kind in KINDS:
            here, there = context.Pipe()
            server = context.Process(target=serve, args=(kind, name, there), daemon=True)
            server.start()
            try:
                url = f"ws://127.0.0.1:{here.recv()}/v1/stream"
                source = Source(bc.load(name, device="cpu"), name)
                asyncio.run(arrivals(source, url, 1.0, UTTERANCE))  # warms up
                say(f"{name}, {kind}")
                core = asyncio.run(listeners_a_core(source, url, psutil.Process(server.pid)))
                most = asyncio.run(capacity(source, url, seconds, say))
                for rate in rates:
                    load = asyncio.run(arrivals(source, url, rate, seconds))
                    rows.append(
                        {"codec": name, "kind": kind, "rate": rate, "listeners": most, "listeners_a_core": core, **figures(load)}
                    )
            finally:
                server.terminate()
                server.join()
        pool, window = (next(row for row in rows if (row["codec"], row["kind"]) == (name, kind)) for kind in KINDS)
        gain, by_cpu = (pool[key] / max(1e-9, window[key]) for key in ("listeners", "listeners_a_core"))
        say(f"{name}: a pool has {gain:.2f} times the listeners of windows in real time, {by_cpu:.2f} times by CPU time")
    return rows


def figures(load: Load) -> dict[str, Any]:
    """Figures of streams that begin by a Poisson process."""
    firsts = [1000 * first for first in load.firsts] or [float("nan")]
    return {
        "streams": len(load.listeners) + load.lost,
        "most_at_once": load.most,
        "first_audio_p50_ms": median(firsts),
        "first_audio_p95_ms": quantiles(firsts, n=20)[-1] if len(firsts) > 1 else firsts[0],
        "underruns_percent": load.underruns,
        "lost": load.lost,
    }


FIGURES = {
    "rate": "streams a second",
    "streams": "streams",
    "most_at_once": "most at once",
    "first_audio_p50_ms": "first audio p50",
    "first_audio_p95_ms": "p95",
    "underruns_percent": "underruns %",
    "lost": "lost",
    "listeners": "listeners in real time",
    "listeners_a_core": "a core, by CPU time",
}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of the rows."""
    table = Table(
        title=f"A server on this machine, which also runs the clients: utterances of {UTTERANCE:g} s, whose tokens arrive at "
        f"{AHEAD} times real time; milliseconds from the beginning of a stream to its first audio"
    )
    for column in ("codec", "kind", *FIGURES.values()):
        table.add_column(column)
    for row in rows:
        table.add_row(row["codec"], row["kind"], *(f"{row[key]:.4g}" for key in FIGURES))
    return table
