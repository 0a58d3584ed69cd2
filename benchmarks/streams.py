"""Many decoder streams on one model: a pool, a session for each, and the sliding window that servers use."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from rich.table import Table

import blazen_codec_core as bc

from .threads import Say

AHEAD = 1.25
"""Speed of the language model, times real time."""
BUFFER = 0.25
"""Seconds of audio that a listener buffers before playing."""
CLOSED = 32
"""Streams beyond which closed loops have fewer blocks, `LEAST` of them at least."""
LEAST = 8
WINDOW = 4
"""Blocks of the sliding window, of which the second last is played."""


class Server(ABC):
    """Decoder of a number of streams, which get blocks of frames."""

    kind: str

    @abstractmethod
    def serve(self, parts: Sequence[tuple[int, bc.CodecTokens]]) -> dict[int, float]:
        """Decode the next block of some streams; return the seconds of audio that each gets."""


class PoolServer(Server):
    """A pool."""

    kind = "pool"

    def __init__(self, codec: bc.DynCodecProvider, count: int) -> None:
        pool = self._pool = codec.decoder_pool(count)
        self._streams = [pool.open() for _ in range(count)]
        self._numbers = {stream: number for number, stream in enumerate(self._streams)}
        self._rate = codec.sample_rate

    def serve(self, parts: Sequence[tuple[int, bc.CodecTokens]]) -> dict[int, float]:
        for number, part in parts:
            self._streams[number].push(part)
        return {self._numbers[stream]: pcm.shape[1] / self._rate for stream, pcm in self._pool.step().items()}


class SessionServer(Server):
    """A session for each stream."""

    kind = "sessions"

    def __init__(self, codec: bc.DynCodecProvider, count: int) -> None:
        self._sessions = [codec.decoder_session(latency="lowest") for _ in range(count)]
        self._rate = codec.sample_rate

    def serve(self, parts: Sequence[tuple[int, bc.CodecTokens]]) -> dict[int, float]:
        return {number: self._sessions[number].push(part).shape[1] / self._rate for number, part in parts}


class WindowServer(Server):
    """The last `WINDOW` blocks of a stream, decoded anew for each block."""

    kind = "window"

    def __init__(self, codec: bc.DynCodecProvider, count: int) -> None:
        self._codec = codec
        self._blocks: list[list[bc.CodecTokens]] = [[] for _ in range(count)]
        self._seconds = codec.spec.block_frames / codec.frame_rate

    def serve(self, parts: Sequence[tuple[int, bc.CodecTokens]]) -> dict[int, float]:
        return {number: self._decode(self._blocks[number], part) for number, part in parts}

    def _decode(self, blocks: list[bc.CodecTokens], part: bc.CodecTokens) -> float:
        blocks[:] = [*(blocks or [part] * WINDOW)[1 - WINDOW :], part]  # whole windows from the first block on
        self._codec.decode(bc.CodecTokens.concat(blocks))
        return self._seconds


class InstantServer(Server):
    """A server that takes no time: what underruns here is the language model's doing."""

    kind = "instant"

    def __init__(self, codec: bc.DynCodecProvider, count: int) -> None:
        pass

    def serve(self, parts: Sequence[tuple[int, bc.CodecTokens]]) -> dict[int, float]:
        return {number: part.seconds for number, part in parts}


SERVERS = (PoolServer, SessionServer, WindowServer)


@dataclass
class Listener:
    """One who plays what arrives, after a short buffer.

    Attributes:
        underruns: Parts that came after the audio before them had been played.
    """

    received: float = 0.0
    plays_until: float | None = None
    waits: list[float] = field(default_factory=list)
    parts: int = 0
    underruns: int = 0

    def hear(self, now: float, seconds: float, wait: float) -> None:
        """Receive audio, `wait` seconds after its tokens were made."""
        self.waits.append(wait)
        if not seconds:
            return
        self.received, self.parts = self.received + seconds, self.parts + 1
        if self.plays_until is None:
            self.plays_until = now + self.received if self.received >= BUFFER else None
            return
        self.underruns += now > self.plays_until
        self.plays_until = max(now, self.plays_until) + seconds


def run(names: Sequence[str], counts: Sequence[int], seconds: float, rounds: int, threads: int, say: Say) -> list[dict[str, Any]]:
    """Measure closed loops, in which every stream gets its next block at once, and then open loops."""
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in names:
            codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
            pcm = 0.1 * np.random.default_rng(0).standard_normal((codec.channels, int(seconds * codec.sample_rate)))
            tokens = codec.encode(pcm.astype(np.float32), codec.sample_rate)
            parts = list(tokens.parts(codec.spec.block_frames))
            for count in counts:
                some = parts[: max(LEAST, len(parts) * CLOSED // max(CLOSED, count))]
                made: dict[type[Server], list[list[float]]] = {server: [] for server in SERVERS}
                least: dict[type[Server], float] = {}
                for number, server in itertools.product(range(rounds + 1), SERVERS):
                    begun = time.process_time()
                    steps = closed_loop(server(codec, count), some, count)
                    if number:  # the first round warms up
                        made[server].append(steps)
                        cpu = 1000 * (time.process_time() - begun) / len(steps)
                        least[server] = min(cpu, least.get(server, cpu))
                for server in (*SERVERS, InstantServer):
                    row = {"codec": name, "streams": count, "kind": server.kind, **open_loop(server(codec, count), parts, count)}
                    if runs := made.get(server):
                        audio = count * sum(part.seconds for part in some)
                        row["listeners_a_core"] = audio / median(sum(steps) for steps in runs) / threads
                        steps = [step for steps in runs for step in steps]
                        row["step_cpu_ms"] = least[server]
                        row |= {"step_p50_ms": 1000 * median(steps), "step_p99_ms": 1000 * quantiles(steps, n=100)[-1]}
                    rows.append(row)
                pool, sessions, window, _ = rows[-4:]
                gains = [pool["listeners_a_core"] / other["listeners_a_core"] for other in (sessions, window)]
                saved = sessions["step_cpu_ms"] / pool["step_cpu_ms"]
                say(
                    f"{name}, {count} streams: {gains[0]:.2f} times as many as sessions ({saved:.2f} by least CPU time), "
                    f"{gains[1]:.2f} as windows"
                )
    finally:
        torch.set_num_threads(before)
    return rows


def closed_loop(server: Server, parts: Sequence[bc.CodecTokens], count: int) -> list[float]:
    """Seconds of each step, in which all streams get a block."""
    steps = []
    for part in parts:
        start = time.perf_counter()
        server.serve([(number, part) for number in range(count)])
        steps.append(time.perf_counter() - start)
    return steps


def open_loop(server: Server, parts: Sequence[bc.CodecTokens], count: int) -> dict[str, float]:
    """Waits and underruns, if tokens arrive on their own: a Poisson process for each stream, `AHEAD` of real time.

    A server takes all that has arrived, a block of each stream at most, and then what has arrived meanwhile. It stops with the
    last arrival, so that one that is too slow does not run for ever.
    """
    arrivals = sorted(_arrivals(parts, count), key=lambda arrival: arrival[0])
    queues: list[list[tuple[float, bc.CodecTokens]]] = [[] for _ in range(count)]
    listeners = [Listener() for _ in range(count)]
    began, following, end = time.perf_counter(), 0, arrivals[-1][0]
    while (now := time.perf_counter() - began) <= end or any(queues):
        if now > end + 1:
            break
        while following < len(arrivals) and arrivals[following][0] <= now:
            when, number, part = arrivals[following]
            queues[number].append((when, part))
            following += 1
        due = [(number, *queue.pop(0)) for number, queue in enumerate(queues) if queue]
        if not due:
            if following == len(arrivals):
                break
            time.sleep(max(0.0, arrivals[following][0] - now))
            continue
        got = server.serve([(number, part) for number, _, part in due])
        now = time.perf_counter() - began
        for number, when, _ in due:
            listeners[number].hear(now, got.get(number, 0.0), now - when)
    waits = [wait for listener in listeners for wait in listener.waits]
    played = sum(listener.parts for listener in listeners)
    return {
        "wait_p50_ms": 1000 * median(waits),
        "wait_p99_ms": 1000 * quantiles(waits, n=100)[-1],
        "underruns_percent": 100 * sum(listener.underruns for listener in listeners) / max(1, played),
        "unserved_percent": 100 * (1 - len(waits) / len(arrivals)),
    }


def _arrivals(parts: Sequence[bc.CodecTokens], count: int) -> Iterable[tuple[float, int, bc.CodecTokens]]:
    """Time, stream and tokens of each block. Streams begin at any time of the first two seconds."""
    random = np.random.default_rng(0)
    for number in range(count):
        when = float(random.uniform(0, 2))
        for part in parts:
            when += float(random.exponential(part.seconds / AHEAD)) if part.seconds else 0.0
            yield when, number, part


FIGURES = {
    "listeners_a_core": "listeners a core",
    "step_cpu_ms": "step CPU",
    "step_p50_ms": "step p50",
    "step_p99_ms": "p99",
    "wait_p50_ms": "wait p50",
    "wait_p99_ms": "p99",
    "underruns_percent": "underruns %",
    "unserved_percent": "unserved %",
}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of the rows."""
    table = Table(
        title="Decoder streams in blocks: listeners in real time a core, and milliseconds of a step for all, of CPU time in the "
        "least disturbed round and of wall time; then, with Poisson "
        f"arrivals at {AHEAD} times real time, milliseconds from tokens to audio, and parts that came too late"
    )
    for column in ("codec", "streams", "kind", *FIGURES.values()):
        table.add_column(column)
    for row in rows:
        figures = (f"{row[key]:.1f}" if key in row else "" for key in FIGURES)
        table.add_row(row["codec"], str(row["streams"]), row["kind"], *figures)
    return table
