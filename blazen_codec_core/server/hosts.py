"""Checks of `Host` and `Origin` headers, against DNS rebinding and requests of foreign pages.

With DNS rebinding, a foreign page reaches this machine under the page's own host name, so host names are compared with an
allow-list. Addresses cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
PORTS = {"http": 80, "https": 443}


def authority(text: str) -> tuple[str, int | None] | None:
    """Parse `host`, `host:port` or `[host]:port` into a lower-case host without brackets and a port; `None` if invalid."""
    found = AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > 65535:
        return None
    if found["six"] is None:
        return found["name"].lower().removesuffix("."), port
    try:
        return str(ipaddress.IPv6Address(found["six"])), port
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is a loopback one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Hosts:
    """Names and addresses that a server answers to.

    Args:
        host: Address to listen at. Beyond loopback, all addresses and this machine's name are accepted.
        names: Additional names, such as a proxy's; `*.example.com` for all subdomains.
    """

    def __init__(self, host: str = LOOPBACK[0], names: Collection[str] = ()) -> None:
        self.is_public = not is_loopback(host)
        own = (host, socket.gethostname(), f"{socket.gethostname()}.local") if self.is_public else (host,)
        self._own = {name.lower() for name in (*LOOPBACK, *own)}
        self._names = {name.lower() for name in names}

    def is_named(self, host: str) -> bool:
        """Tell whether a host is one of the additional names."""
        return host in self._names or any(name.startswith("*.") and host.endswith(name[1:]) for name in self._names)

    def is_ours(self, said: str | None) -> bool:
        """Tell whether a `Host` header is accepted; any port is, because of proxies."""
        found = authority(said or "")
        if found is None:
            return False
        host = found[0]
        return host in self._own or self.is_named(host) or is_loopback(host) or (self.is_public and _is_address(host))

    def may_come_from(self, origins: Sequence[str], said: str | None) -> bool:
        """Tell whether a connection is allowed: from this server's page, an additional name, or a client without `Origin`.

        Args:
            origins: `Origin` headers.
            said: `Host` header.
        """
        if not origins:
            return True
        scheme, slashes, rest = origins[0].partition("://")
        came, here = authority(rest), authority(said or "")
        if len(origins) > 1 or not slashes or scheme not in PORTS or came is None or here is None:
            return False
        default = PORTS[scheme]
        return (came[0], came[1] or default) == (here[0], here[1] or default) or self.is_named(came[0])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class OurHostsOnly:
    """Middleware that rejects requests for other hosts with status 400."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            said = Headers(scope=scope).getlist("host")
            if len(said) != 1 or not self._hosts.is_ours(said[0]):
                await PlainTextResponse("this host name is not allowed. See --allow-host", status_code=400)(scope, receive, send)
                return
        await self._app(scope, receive, send)
