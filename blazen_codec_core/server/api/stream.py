"""A WebSocket of the interface for programs, which is one stream of a pool; docs/serving.md has its messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...errors import ServiceError
from ...pools import PoolStream
from ...protocol import (
    CLIENT_MESSAGES,
    OPEN,
    Ack,
    End,
    Ended,
    Open,
    Ping,
    Pong,
    Ready,
    code_of,
    parsed,
)
from ...tokens.tokens import CodecTokens
from .answers import failure, log_failure
from .codings import Inlet, Outlet, codings
from .metrics import Playback
from .pools import PoolKey, SharedPool
from .service import CodecService

log = logging.getLogger(__name__)
AT_ONCE = 1 << 16
"""Most samples per channel in a message."""
ACK_SECONDS = 0.05
"""Shortest time between acknowledgements."""
CLOSE_CODES = {"internal": 1011, "busy": 1013, "draining": 1012, "unauthorized": 1008, "too_many": 1008, "protocol": 1002}
FAILED = 1008
"""Close code of other errors."""


class StreamConnection:
    """One client's stream. Errors are sent as messages."""

    def __init__(self, socket: WebSocket, service: CodecService) -> None:
        self._socket, self._service = socket, service
        self._messages = self._samples = self._frames = 0
        self._taken = asyncio.Event()
        self._ended_by: str | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Serve the client until the stream or the connection ends."""
        await self._socket.accept()
        error: BaseException | None = None
        try:
            self._task = asyncio.create_task(self._serve())
            await self._task
        except WebSocketDisconnect:  # no client to report to
            return
        except asyncio.CancelledError:
            if self._ended_by is None:
                raise
            error = ServiceError("the server ends; the stream is not complete", self._ended_by)
        except BaseExceptionGroup as group:
            error = _first(group)
        except Exception as failed:
            error = failed
        if error is None:
            await self._close()
        elif not isinstance(error, WebSocketDisconnect):
            await self._fail(error)

    def end(self) -> None:
        """End the stream because the server ends."""
        self._ended_by = "draining"
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        service = self._service
        asked = await self._asked()
        client = client_of(self._socket, service, asked.token)
        name, codec = service.find(asked.codec)
        key = PoolKey.of(name, codec, asked)
        inlet, outlet = codings(asked, codec.spec, service.registry)
        with service.access.stream(client), service.stream_place(self.end):
            async with service.pools.stream(codec, key) as (shared, stream):
                service.metrics.streams.labels(*key.labels).inc()
                await self._say(_ready(shared, key))
                async with asyncio.TaskGroup() as tasks:
                    listening = tasks.create_task(self._listen(inlet, stream))
                    acking = tasks.create_task(self._acknowledge(inlet))
                    await self._speak(stream, outlet, key)
                    listening.cancel()
                    acking.cancel()
            await self._say(Ended(taken=inlet.taken, samples=self._samples, frames=self._frames, lost=inlet.lost))

    async def _asked(self) -> Open:
        try:
            async with asyncio.timeout(self._service.limits.stall_seconds):
                message = await self._heard()
        except TimeoutError as error:
            raise ServiceError("timed out waiting for the message that opens a stream", "stalled") from error
        if not isinstance(message, str):
            raise ServiceError("the first message is binary; expected JSON of type open", "protocol")
        return parsed(OPEN, message)

    async def _heard(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def _listen(self, inlet: Inlet, stream: PoolStream[Any, Any]) -> None:
        """Take messages; the socket is not read while the stream's queue is full."""
        is_over = said_end = False
        while True:
            message = await (self._heard() if is_over else self._heard_in_time())
            given = message if isinstance(message, bytes) else parsed(CLIENT_MESSAGES, message)
            if isinstance(given, Ping):
                await self._say(Pong(id=given.id))
                continue
            if said_end:
                raise ServiceError("the stream has ended; open another one", "protocol")
            said_end = isinstance(given, End)
            if is_over:  # by an id of the layout; those after it are ignored
                continue
            if isinstance(given, End):
                value, is_over = inlet.finish(), True
            else:
                value = inlet.push(given)
                self._messages += 1
            if value is not None:
                await stream.apush(value)
            self._taken.set()
            if is_over or inlet.ended:
                is_over = True
                stream.finish()

    async def _heard_in_time(self) -> str | bytes:
        try:
            async with asyncio.timeout(self._service.limits.idle_seconds):
                return await self._heard()
        except TimeoutError as error:
            raise ServiceError(
                f"nothing was sent for {self._service.limits.idle_seconds:g} s; send ping while there is nothing else", "stalled"
            ) from error

    async def _acknowledge(self, inlet: Inlet) -> None:
        while True:
            await self._taken.wait()
            self._taken.clear()
            await self._say(Ack(messages=self._messages, taken=inlet.taken))
            await asyncio.sleep(ACK_SECONDS)

    async def _speak(self, stream: PoolStream[Any, Any], outlet: Outlet, key: PoolKey) -> None:
        """Send what the stream gives, to its end."""
        metrics, rate = self._service.metrics, self._service.codecs[key.codec].sample_rate
        audio, playback = metrics.audio.labels(*key.labels), Playback(metrics.underruns.labels(key.codec))
        async for value in stream:
            if isinstance(value, CodecTokens):
                parts, samples = [value] if value.frames else [], value.num_samples
                self._frames += value.frames
            else:
                samples = value.shape[1]
                parts = [value[:, start : start + AT_ONCE] for start in range(0, samples, AT_ONCE)]
                if samples:
                    playback.hear(samples / rate)
            self._samples += samples
            audio.inc(samples / rate)
            for part in parts:
                await self._send(outlet.push(part))
        await self._send(outlet.finish())

    async def _send(self, data: bytes) -> None:
        if data:
            await self._in_time(self._socket.send_bytes(data))

    async def _say(self, message: Any) -> None:
        await self._in_time(self._socket.send_text(message.model_dump_json()))

    async def _in_time(self, sending: Any) -> None:
        seconds = self._service.limits.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                await sending
        except TimeoutError as error:
            raise ServiceError(f"the client took nothing for {seconds:g} s", "stalled") from error

    async def _fail(self, error: BaseException) -> None:
        code = code_of(error)
        self._service.metrics.rejected.labels(code).inc()
        log_failure(log, error)
        with contextlib.suppress(ServiceError, WebSocketDisconnect, RuntimeError):
            await self._say(failure(error))
        await self._close(CLOSE_CODES.get(code, FAILED))

    async def _close(self, code: int = 1000) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, ServiceError):
            await self._in_time(self._socket.close(code))


def client_of(connection: HTTPConnection, service: CodecService, token: str | None = None) -> str:
    """Return the name of a client; raise `ServiceError` (`unauthorized`) without a token, if one is needed."""
    address = connection.client.host if connection.client else "unknown"
    return service.access.client(connection.headers.get("authorization"), address, token)


def _ready(shared: SharedPool, key: PoolKey) -> Ready:
    spec = shared.pool.backend.spec
    return Ready(
        codec=spec.identity,
        sample_rate=spec.sample_rate,
        channels=spec.channels,
        hop_length=spec.hop_length,
        strides=spec.strides,
        tile_frames=key.tile_frames,
        first_frames=shared.first_frames,
        latency_samples=shared.latency_samples,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group; that a client has gone matters most."""
    errors: list[BaseException] = []
    for error in group.exceptions:
        errors.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in errors if isinstance(error, WebSocketDisconnect)), errors[0])
