"""Bearer tokens, and what one client may have at once."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidInput, ServiceError
from ...protocol import MOST_TOKEN_BYTES

VARIABLE = "BLAZEN_CODEC_TOKENS"
"""Environment variable with bearer tokens, separated by white space or commas."""
SHORTEST_TOKEN = 16
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
SCHEME = "bearer "


@dataclass(frozen=True)
class ClientLimits:
    """Limits of one client, which is a bearer token, or an address if there are no tokens.

    Attributes:
        streams: Most open streams.
        requests: Most HTTP requests at once.
    """

    streams: int = 64
    requests: int = 8


def check_tokens(tokens: Iterable[str], where: str) -> list[str]:
    """Return bearer tokens.

    Raises:
        InvalidInput: A token is too short or too long, or has characters that headers cannot carry. The message does not show it.
    """
    checked = []
    for number, token in enumerate(tokens, 1):
        if not SHORTEST_TOKEN <= len(token) <= MOST_TOKEN_BYTES or not TOKEN.fullmatch(token):
            raise InvalidInput(
                f"token {number} of {where} is not {SHORTEST_TOKEN} to {MOST_TOKEN_BYTES} letters, digits or . _ ~ + / = -. "
                "Make one with: openssl rand -hex 32"
            )
        checked.append(token)
    return checked


def read_tokens(path: Path | None) -> list[str]:
    """Read bearer tokens from a file, one a line with `#` comments, or else from the environment; none if both are missing.

    Raises:
        InvalidInput: The file cannot be read or has no token, or a token is invalid.
    """
    if path is None:
        return check_tokens(
            re.split(r"[\s,]+", os.environ.get(VARIABLE, "").strip(" ,\t\n")) if VARIABLE in os.environ else (), VARIABLE
        )
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    tokens = check_tokens(filter(None, lines), str(path))
    if not tokens:
        raise InvalidInput(f"{path} has no tokens; expected one a line")
    return tokens


class Access:
    """Check of who may use a server, and of how much a client has at once. For one event loop.

    Args:
        tokens: Bearer tokens; without any, everybody may, and a client is an address.
        limits: Limits of one client.
    """

    def __init__(self, tokens: Iterable[str] = (), limits: ClientLimits | None = None) -> None:
        self._digests = [_digest(token) for token in tokens]
        self.limits = limits or ClientLimits()
        self._streams, self._requests = Counter[str](), Counter[str]()

    @property
    def needs_token(self) -> bool:
        """True if clients need a bearer token."""
        return bool(self._digests)

    def client(self, authorization: str | None, address: str, token: str | None = None) -> str:
        """Return the name of a client. Tokens are compared in constant time.

        Args:
            authorization: Header `Authorization`.
            address: Address of the client.
            token: Token from elsewhere, if there is no header.

        Raises:
            ServiceError: There is no token, or an unknown one (`unauthorized`).
        """
        if not self._digests:
            return address
        if authorization is not None:
            token = authorization[len(SCHEME) :].strip() if authorization.lower().startswith(SCHEME) else None
        sent = _digest(token or "")
        known = [number for number, digest in enumerate(self._digests) if hmac.compare_digest(digest, sent)]
        if not known:
            raise ServiceError("a valid bearer token is needed: Authorization: Bearer TOKEN", "unauthorized")
        return f"token {known[0] + 1}"

    @contextmanager
    def stream(self, client: str) -> Iterator[None]:
        """Count an open stream of a client in the block; raise `ServiceError` (`too_many`) if it has as many as it may."""
        with _counted(self._streams, client, self.limits.streams, "streams"):
            yield

    @contextmanager
    def request(self, client: str) -> Iterator[None]:
        """Count an HTTP request of a client in the block; raise `ServiceError` (`too_many`) if it has as many as it may."""
        with _counted(self._requests, client, self.limits.requests, "requests"):
            yield


@contextmanager
def _counted(counts: Counter[str], client: str, most: int, what: str) -> Iterator[None]:
    if counts[client] >= most:
        raise ServiceError(f"this client has {most} {what} already, the most at once; end one first", "too_many")
    counts[client] += 1
    try:
        yield
    finally:
        counts[client] -= 1
        if not counts[client]:
            del counts[client]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
