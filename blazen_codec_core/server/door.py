"""Limits on connections: time to send a request, its size, and their number."""

from __future__ import annotations

import asyncio
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

if TYPE_CHECKING:
    from .api.service import CodecService

LARGEST_MESSAGE, MESSAGES = 1 << 20, 4
"""Largest WebSocket message in bytes, and the number of queued messages."""
LARGEST_HEAD, LARGEST_LINE = 16 << 10, 4 << 10
HEAD_SECONDS = 10.0
"""Timeout in seconds for a request's head, from the opening of the connection or the last response."""
ANSWER_SECONDS = 60.0
"""Timeout in seconds for the rest of a request and its response; WebSockets have their own timeouts."""
CLOSE_SECONDS = 10.0
"""Seconds in which a client has to take what is left when its connection is closed."""
TIMED = "/v1/"
"""Paths whose operations have timeouts of their own, because recordings and their audio may take longer."""
CONNECTIONS = 256
"""Most simultaneous connections; more get status 503, and above twice as many are closed."""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Prompt(H11Protocol):
    """uvicorn's protocol with timeouts for heads and responses, which uvicorn itself lacks."""

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
            if self.cycle.scope["path"].startswith(TIMED):
                self._stop_waiting()
                self._abort_if_closing()
            else:
                self._wait(ANSWER_SECONDS)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_waiting()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self.transport.write(BUSY)
            self.transport.close()
            return
        lines = [len(name) + len(value) for name, value in event.headers] + [len(event.target)]
        if max(lines) > LARGEST_LINE or sum(lines) > LARGEST_HEAD:  # websockets neither answers nor closes such connections
            self.send_400_response("The request's head is too large.")
            return
        super().handle_websocket_upgrade(event)
        self._late = self.loop.call_later(self.seconds, self._end_unopened)

    def _abort_if_closing(self) -> None:
        """Look from time to time whether the connection is to be closed, and do so even if its client takes nothing more."""
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self._late = self.loop.call_later(CLOSE_SECONDS, self._abort_if_closing)

    def _end_unopened(self) -> None:
        """Close a connection whose WebSocket handshake is incomplete."""
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


class PromptSocket(AutoWebSocketsProtocol):  # type: ignore[misc,valid-type]
    """uvicorn's protocol for WebSockets, which closes connections even if their clients take nothing more."""

    async def run_asgi(self) -> None:
        """Run the application, and close the connection."""
        await super().run_asgi()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


def config(
    application: ASGIApp, *, connections: int = CONNECTIONS, head_seconds: float = HEAD_SECONDS, **more: Any
) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, with limits on connections."""
    return uvicorn.Config(
        application,
        ws=PromptSocket,
        http=type("Prompt", (Prompt,), {"seconds": head_seconds}),
        log_level="warning",
        limit_concurrency=connections,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ws_max_size=LARGEST_MESSAGE,
        ws_max_queue=MESSAGES,
        ws_per_message_deflate=False,  # audio does not compress, and inflating messages costs memory
        ws_ping_timeout=None,  # answers to pings wait behind messages that are not read yet; streams have timeouts of their own
        timeout_graceful_shutdown=3,
        server_header=False,
        **more,
    )


class DrainingServer(uvicorn.Server):
    """Server that drains at the first signal, and ends at the second.

    While it drains, `/ready` says 503 and no streams are opened. It ends once no stream is open, or after `drain_seconds`.
    """

    def __init__(self, config: uvicorn.Config, service: CodecService) -> None:
        super().__init__(config)
        self._service = service
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or end at once if that has begun."""
        super().handle_exit(sig, frame)
        if not self._service.is_draining:
            self.should_exit = False
            self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """End once all streams have ended, or their time is over."""
        if self._service.is_draining and not self.should_exit:
            now = time.monotonic()
            self._until = self._until or now + self._service.limits.drain_seconds
            self.should_exit = not self._service.is_busy or now > self._until
        if self.should_exit and self._service.is_draining:
            self._service.end_streams()
            await asyncio.sleep(0.1)  # in which they say so
        return await super().on_tick(counter)
