"""A server of the comparison page in a thread, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from blazen_codec_core import LoadOptions
from blazen_codec_core.comparison.aligned_roundtrip import AlignedRoundtrip
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation.evaluate import Scorer
from blazen_codec_core.server import door
from blazen_codec_core.server.api import Access, ClientLimits, CodecService, ServiceLimits
from blazen_codec_core.server.app import application
from blazen_codec_core.server.catalog import CodecCatalog, Limits
from blazen_codec_core.server.hosts import Hosts
from tests.helpers.asgi import running

T = TypeVar("T")
CHUNK = 1 << 20
PATIENCE = 300
"""Seconds until what does not answer is taken for something that hangs."""
TINY = ("encodec_tiny", "snac_tiny", "dac_tiny")


@contextlib.contextmanager
def serving(
    names: tuple[str, ...] = TINY,
    judge: Scorer | None = None,
    hosts: Hosts | None = None,
    entering: dict[str, Any] | None = None,
    **limits: Any,
) -> Iterator[str]:
    """Where it can be reached, such as `127.0.0.1:34567`; `entering` is for `door.config`."""
    house = CodecCatalog(names, LoadOptions(device="cpu"), Limits(**limits), judge or Scorer([]))
    config = door.config(application(house, hosts), port=0, **(entering or {}))
    with running(uvicorn.Server(config)) as where:
        yield where


class Served:
    """A server of the interface for programs.

    Attributes:
        where: Where it can be reached.
        service: What it serves.
        server: The server, in a thread.
    """

    def __init__(self, where: str, service: CodecService, server: door.DrainingServer) -> None:
        self.where, self.service, self.server = where, service, server
        self.url = f"http://{where}"

    def stop(self) -> None:
        """Send it the signal to end."""
        self.server.handle_exit(signal.SIGTERM, None)

    def break_connections(self) -> None:
        """Abort all connections that are open, as a network does that fails."""

        async def abort() -> None:
            for connection in list(self.server.server_state.connections):
                connection.transport.abort()

        self.run(abort)

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop of the server."""
        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.server.servers[0].get_loop()

    def streams(self) -> int:
        """Number of open streams, in pools."""
        return sum(stats.open for _, stats in self.service.pools.stats())


@contextlib.contextmanager
def serving_api(
    names: tuple[str, ...] = ("snac_tiny",),
    *,
    tokens: tuple[str, ...] = (),
    client: ClientLimits | None = None,
    hosts: Hosts | None = None,
    house: CodecCatalog | None = None,
    port: int = 0,
    weights: str | None = None,
    ready: bool = True,
    **limits: Any,
) -> Iterator[Served]:
    """The interface for programs, with `ServiceLimits`, once it is ready."""
    service = CodecService(names, LoadOptions(device="cpu", weights=weights), ServiceLimits(**limits), Access(tokens, client))
    config = door.config(application(house, hosts, service), port=port)
    server = door.DrainingServer(config, service)
    with running(server) as where:
        while ready and not (service.is_ready or service.failure):
            time.sleep(0.01)
        yield Served(where, service, server)


def seconds_finished(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of each recording that has been through a codec to its end, from now on."""
    finished: list[float] = []
    finish = AlignedRoundtrip.finish

    def noted(trip: AlignedRoundtrip) -> Any:
        finished.append(trip.seconds)
        return finish(trip)

    monkeypatch.setattr(AlignedRoundtrip, "finish", noted)
    return finished


def wav(seconds: float, rate: int = 24_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([0.5 * voice(seconds, rate, seed) for seed in range(channels)]).T, rate, format="WAV")
    return file.getvalue()


class Answers:
    """All that a visit was told."""

    def __init__(self) -> None:
        self.said: list[dict] = []
        self.order: list[str] = []
        self.audio: dict[int, list[bytes]] = {}
        self.tokens: dict[int, bytes] = {}

    def hear(self, message: str | bytes) -> str:
        if isinstance(message, str):
            self.said.append(json.loads(message))
            self.order.append(self.said[-1]["type"])
            return self.order[-1]
        kind, number = struct.unpack_from("<II", message)
        if kind == 0:
            self.audio.setdefault(number, []).append(message[8:])
        else:
            self.tokens[number] = message[8:]
        self.order.append(f"{'audio' if kind == 0 else 'tokens'} {number}")
        return self.order[-1]

    def of(self, kind: str) -> dict:
        return next(message for message in self.said if message["type"] == kind)

    def pcm(self, number: int, channels: int = 1) -> np.ndarray:
        return np.concatenate([np.frombuffer(part, "<f4").reshape(channels, -1) for part in self.audio[number]], axis=1)


def visit(where: str, content: bytes, systems=("snac_tiny",), name="in.wav", size=None, **more) -> Answers:
    """A whole visit, until the server ends it."""
    answers = Answers()
    asked = {"systems": list(systems), "name": name, "size": len(content) if size is None else size, **more}
    with connect(f"ws://{where}/compare", max_size=None) as socket:
        socket.send(json.dumps(asked))
        try:
            while True:
                if answers.hear(socket.recv(PATIENCE)) == "ready":
                    for at in range(0, len(content), CHUNK):
                        socket.send(content[at : at + CHUNK])
        except ConnectionClosed:
            return answers
