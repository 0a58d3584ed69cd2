"""Limits on connections: time to send a request, its size, and their number."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

LARGEST_MESSAGE, MESSAGES = 1 << 20, 4
"""Bytes of a message over a WebSocket, and how many wait to be heard."""
LARGEST_HEAD, LARGEST_LINE = 16 << 10, 4 << 10
HEAD_SECONDS = 10.0
"""In which the head of a request has to be there, from when the connection is open or the last answer has been given."""
ANSWER_SECONDS = 60.0
"""In which an answer has to be taken, the rest of the request with it; visits have times of their own."""
CONNECTIONS = 256
"""At once; who asks beyond these is told 503, and beyond twice as many the door is closed."""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Prompt(H11Protocol):
    """uvicorn's protocol, with a time for heads and answers: uvicorn itself waits for them for ever."""

    seconds = HEAD_SECONDS
    _late: asyncio.TimerHandle | None = None
    _answered: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > 2 * self.limit_concurrency:
            transport.abort()
            return
        self._wait(self.seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not self._answered and not self.cycle.response_complete:
            self._answered = self.cycle
            self._wait(ANSWER_SECONDS)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_waiting()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self.transport.write(BUSY)
            self.transport.close()
            return
        lines = [len(name) + len(value) for name, value in event.headers] + [len(event.target)]
        if max(lines) > LARGEST_LINE or sum(lines) > LARGEST_HEAD:  # websockets says nothing to those, and keeps them
            self.send_400_response("The request's head is too large.")
            return
        super().handle_websocket_upgrade(event)
        self._late = self.loop.call_later(self.seconds, self._end_unopened)

    def _end_unopened(self) -> None:
        """Ends a connection that has asked for a WebSocket and has not got it."""
        if not getattr(self.transport.get_protocol(), "handshake_complete", True):
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait(self.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def config(
    application: ASGIApp, *, connections: int = CONNECTIONS, head_seconds: float = HEAD_SECONDS, **more: Any
) -> uvicorn.Config:
    """Configuration with which uvicorn runs an application, within limits on its connections."""
    return uvicorn.Config(
        application,
        http=type("Prompt", (Prompt,), {"seconds": head_seconds}),
        log_level="warning",
        limit_concurrency=connections,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ws_max_size=LARGEST_MESSAGE,
        ws_max_queue=MESSAGES,
        ws_per_message_deflate=False,  # audio does not shrink, and what was deflated would be inflated first
        timeout_graceful_shutdown=3,
        server_header=False,
        **more,
    )
