"""Requests over HTTP, with errors of the classes that the server named."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import ValidationError

from ..errors import CodecError, ConnectionLost, InvalidInput, ServiceError, reason
from ..protocol import Error, error_of

T = TypeVar("T")
AGAIN = ("draining", "busy", "connection_lost")
"""Codes after which trying again may help."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before the first further try, doubled for each, up to a longest."""
LARGEST_ERROR = 1 << 16


def wait_before(tries: int) -> float:
    """Seconds to wait before another try, after so many."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2**tries))


def failure_of(status: int, body: bytes) -> CodecError:
    """Return the error of an answer that is none of success."""
    try:
        return error_of(Error.model_validate_json(body))
    except ValidationError:
        code = {401: "unauthorized", 403: "forbidden", 413: "too_large", 429: "too_many", 503: "busy"}.get(status, "internal")
        return ServiceError(f"the server answered with status {status}", code)


@dataclass(frozen=True)
class Server:
    """Address of a server, and how it is spoken to.

    Attributes:
        url: Address, such as `http://127.0.0.1:8765`.
        token: Bearer token.
        retries: Further tries after a failure that may pass.
        timeout: Seconds without any sign of the server until it is taken for lost.
        tls: Settings of TLS, for `https`.

    Raises:
        InvalidInput: The address is none of `http` or `https`.
    """

    url: str
    token: str | None
    retries: int
    timeout: float
    tls: ssl.SSLContext | None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidInput(f"url is {self.url!r}; expected an address such as http://127.0.0.1:8765")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @property
    def stream_url(self) -> str:
        """Address of streams."""
        return f"ws{self.url.rstrip('/').removeprefix('http')}/v1/stream"

    def request(
        self, path: str, query: Mapping[str, object], body: bytes | BinaryIO | None = None, media_type: str | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send a request; return the body of the answer, and its headers in lower case.

        Raises:
            ConnectionLost: The server cannot be reached, or the connection broke.
            CodecError: The server refused; of the class that it named.
        """
        return self._retried(lambda: self._request(path, query, body, media_type))

    def _retried(self, call: Callable[[], T]) -> T:
        for tries in range(self.retries):
            try:
                return call()
            except ServiceError as error:
                if error.code not in AGAIN:
                    raise
                time.sleep(wait_before(tries))
        return call()

    def _request(
        self, path: str, query: Mapping[str, object], body: bytes | BinaryIO | None, media_type: str | None
    ) -> tuple[bytes, Mapping[str, str]]:
        if body is not None and not isinstance(body, bytes):
            body.seek(0)
        given = {name: value for name, value in query.items() if value is not None}
        headers = {**self.headers, **({"Content-Type": media_type} if media_type else {})}
        url = f"{self.url.rstrip('/')}{path}{'?' if given else ''}{urlencode(given)}"
        method = "GET" if body is None else "POST"
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout, context=self.tls) as answer:
                return answer.read(), {name.lower(): value for name, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            with error:
                raise failure_of(error.code, error.read(LARGEST_ERROR)) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"{self.url} cannot be reached, or the connection broke: {reason(error)}") from error


def parsed_object(data: bytes, url: str) -> dict[str, object]:
    """Parse an answer that is a JSON object.

    Raises:
        ServiceError: It is none.
    """
    try:
        made = json.loads(data)
    except ValueError as error:
        raise ServiceError(f"{url} answers with something else than JSON: {reason(error)}", "protocol") from error
    if not isinstance(made, dict):
        raise ServiceError(f"{url} answers with JSON that is no object", "protocol")
    return made
