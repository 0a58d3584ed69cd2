"""Answers over HTTP: errors as data, files in parts, and bodies that arrive in time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...errors import InvalidInput, ServiceError, reason
from ...protocol import Error, code_of

log = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)
PART = 1 << 18
"""Bytes that are sent at once."""
SLOWEST_UPLOAD = 250_000
"""Least upload rate in bytes per second, because uploads occupy a turn."""
RETRY_SECONDS = 5
STATUS = {
    "protocol": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_codec": 404,
    "stalled": 408,
    "too_large": 413,
    "invalid_input": 422,
    "invalid_tokens": 422,
    "corrupt_file": 422,
    "too_many": 429,
    "not_yet_implemented": 501,
    "busy": 503,
    "draining": 503,
    "pool_full": 503,
    "weights_unavailable": 503,
    "engine_not_available": 503,
    "device_unavailable": 503,
}
"""HTTP status by code; 500 for others."""
OURS = ("weights_unavailable", "engine_not_available", "device_unavailable", "plugin_error", "inference_error", "internal")
"""Codes of errors that are not the client's. Their details stay in the log, as they may have paths of the server."""


def failure(error: BaseException) -> Error:
    """Return the message for an error."""
    code = code_of(error)
    if code not in OURS or isinstance(error, ServiceError):
        return Error(code=code, error=type(error).__name__, message=str(error))
    kind = "ServiceError" if code == "internal" else type(error).__name__
    return Error(code=code, error=kind, message="the server failed; its log has the reason")


def log_failure(to: logging.Logger, error: BaseException) -> None:
    """Log an error that is not the client's."""
    if code_of(error) in OURS:
        to.error("a request failed", exc_info=error)


class Failed(Response):
    """Answer to a request that failed."""

    media_type = "application/json"

    def __init__(self, error: BaseException) -> None:
        made = failure(error)
        self.code = made.code
        headers = {"WWW-Authenticate": "Bearer"} if made.code == "unauthorized" else {}
        if (status := STATUS.get(made.code, 500)) in (429, 503):
            headers["Retry-After"] = str(RETRY_SECONDS)
        super().__init__(made.model_dump_json(), status, headers)


class FileResponse(Response):
    """A file in parts, each of which the client takes in time. The file is closed afterwards.

    Args:
        file: Open file.
        seconds: Seconds that the client may take for a part.
        progress: Context of sending.
    """

    def __init__(
        self,
        file: BinaryIO,
        media_type: str,
        seconds: float,
        progress: AbstractContextManager[None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        super().__init__(b"", headers={**(headers or {}), "Content-Length": str(size)}, media_type=media_type)
        self._file, self._seconds, self._progress = file, seconds, progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._progress, self._file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while part := await asyncio.to_thread(self._file.read, PART):
                try:
                    async with asyncio.timeout(self._seconds):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                except TimeoutError:
                    log.warning("a client took nothing of its answer for %g s", self._seconds)
                    return  # which closes the connection, as the answer is not complete
            await send({"type": "http.response.body", "body": b""})


def asked(model: type[M], request: Request) -> M:
    """Parse a query.

    Raises:
        ServiceError: A parameter is missing, unknown or invalid (`protocol`).
    """
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise ServiceError(f"the query is invalid: {reason(error)}", "protocol") from error


async def receive_body(request: Request, file: BinaryIO, most: int, patience: float) -> int:
    """Write a request's body to a file as it comes; return its size.

    Args:
        most: Most bytes.
        patience: Seconds that a part may take, and seconds until the body has to have come at `SLOWEST_UPLOAD`.

    Raises:
        InvalidInput: The body is empty.
        ServiceError: It is too large (`too_large`), or comes too slowly (`stalled`).
        ClientDisconnect: The client has gone.
    """
    too_large = ServiceError(f"the body exceeds the limit of {most / 1e6:g} MB", "too_large")
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > most:
        raise too_large
    loop = asyncio.get_running_loop()
    size, began = 0, loop.time()
    parts = request.stream()
    try:
        while True:
            until = min(loop.time(), began + size / SLOWEST_UPLOAD) + patience
            async with asyncio.timeout_at(until):
                part = await anext(parts, None)
            if part is None:
                break
            if (size := size + len(part)) > most:
                raise too_large
            file.write(part)
    except TimeoutError as error:
        raise ServiceError("the body comes too slowly", "stalled") from error
    if not size:
        raise InvalidInput("the body is empty; send the file itself as the body")
    file.seek(0)
    return size


async def until_gone(request: Request) -> None:
    """Wait until the client disconnects, once its body was received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answered(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer errors of a handler as data."""

    @wraps(handler)
    async def run(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody receives
        except Exception as error:
            log_failure(log, error)
            return Failed(error)

    return run
