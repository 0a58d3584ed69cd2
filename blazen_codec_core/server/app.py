"""The page and its WebSocket, as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..comparison.render.html import page, source
from .catalog import CodecCatalog
from .connection import Connection
from .hosts import Hosts, OurHostsOnly

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
SCRIPTS = ("wave.js", "run.js", "live.js")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def application(house: CodecCatalog, hosts: Hosts | None = None) -> Starlette:
    """Build the ASGI application.

    Args:
        house: Codecs and limits.
        hosts: Host names that it answers to; by default those of the loopback interface.
    """
    answered = hosts or Hosts()

    def show(_: Request) -> Response:
        scripts = [("live", name) for name in SCRIPTS]
        text = page("Compare codecs", house.offer(), scripts, POLICY, source("live", "live.css"))
        return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'"})

    async def visit(socket: WebSocket) -> None:
        if not answered.may_come_from(socket.headers.getlist("origin"), socket.headers.get("host")):
            await socket.close()  # 403
            return
        await Connection(socket, house).run()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        house.workers.shutdown(wait=False, cancel_futures=True)

    checked = Middleware(OurHostsOnly, hosts=answered)
    return Starlette(routes=[Route("/", show), WebSocketRoute("/compare", visit)], middleware=[checked], lifespan=lifespan)
