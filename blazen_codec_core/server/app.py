"""The page and its WebSocket, as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..comparison.page import page, source
from .house import House
from .visit import Visit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
SCRIPTS = ("wave.js", "run.js", "live.js")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def application(house: House, host: str = LOOPBACK[0]) -> Starlette:
    """The application.

    Args:
        host: That it is reached at. On the loopback interface, requests for any other name are refused, so that no page from
            elsewhere can be made to point here.
    """

    def show(_: Request) -> Response:
        scripts = [("server", name) for name in SCRIPTS]
        text = page("Compare codecs", house.offer(), scripts, POLICY, source("server", "live.css"))
        return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'"})

    async def visit(socket: WebSocket) -> None:
        if not same_origin(socket):
            await socket.close()
            return
        await Visit(socket, house).run()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        house.workers.shutdown(wait=False, cancel_futures=True)

    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"] if host in LOOPBACK else ["*"])
    return Starlette(routes=[Route("/", show), WebSocketRoute("/compare", visit)], middleware=[trusted], lifespan=lifespan)


def same_origin(socket: WebSocket) -> bool:
    """Whether the page that opened it is ours; what is no browser says no origin."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
