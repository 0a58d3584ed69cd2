"""The page and the interface for programs, as one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..comparison.render.html import page, source
from .catalog import CodecCatalog
from .connection import Connection
from .hosts import Hosts, OurHostsOnly

if TYPE_CHECKING:
    from .api.service import CodecService

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
LISTEN_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
SCRIPTS = ("wave.js", "run.js", "live.js")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def application(house: CodecCatalog | None, hosts: Hosts | None = None, service: CodecService | None = None) -> Starlette:
    """Build the ASGI application.

    Args:
        house: Codecs and limits of the page that compares codecs; `None` leaves the page out.
        hosts: Host names that it answers to; by default those of the loopback interface.
        service: What the interface for programs serves; `None` leaves the interface out.
    """
    answered = hosts or Hosts()
    routes: list[BaseRoute] = [] if house is None else _page(house, answered)
    if service is not None:
        from .api.routes import routes as interface  # here, because the page alone needs no metrics

        routes += [Route("/listen", _listen), *interface(service, answered)]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if service is not None:
            await service.start()
        yield
        if house is not None:
            house.workers.shutdown(wait=False, cancel_futures=True)
        if service is not None:
            await service.close()

    return Starlette(routes=routes, middleware=[Middleware(OurHostsOnly, hosts=answered)], lifespan=lifespan)


def _page(house: CodecCatalog, hosts: Hosts) -> list[BaseRoute]:
    def show(_: Request) -> Response:
        scripts = [("live", name) for name in SCRIPTS]
        text = page("Compare codecs", house.offer(), scripts, POLICY, source("live", "live.css"))
        return _html(text, POLICY)

    async def visit(socket: WebSocket) -> None:
        if not hosts.may_come_from(socket.headers.getlist("origin"), socket.headers.get("host")):
            await socket.close()  # 403
            return
        await Connection(socket, house).run()

    return [Route("/", show), WebSocketRoute("/compare", visit)]


def _listen(_: Request) -> Response:
    text = (
        source("listen", "listen.html").replace("{{policy}}", LISTEN_POLICY).replace("{{script}}", source("listen", "listen.js"))
    )
    return _html(text, LISTEN_POLICY)


def _html(text: str, policy: str) -> Response:
    return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": f"{policy}; frame-ancestors 'none'"})
