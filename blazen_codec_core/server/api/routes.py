"""The operations of the interface, their routes, and their description as OpenAPI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ... import protocol
from ...errors import ServiceError
from ...specs import CodecSpec
from ..hosts import Hosts
from . import metrics, whole
from .answers import RETRY_SECONDS, STATUS, Failed, answered
from .service import CodecService
from .stream import StreamConnection, client_of

Handler = Callable[[Request, CodecService], Awaitable[Response]]
REF = "#/components/schemas/{model}"
MESSAGES = (
    protocol.Open, protocol.Ids, protocol.Text, protocol.Ping, protocol.End,
    protocol.Ready, protocol.Ack, protocol.Pong, protocol.Ended, protocol.Error,
)  # fmt: skip
CLIENT_MESSAGES = 5
"""Number of messages above that clients send."""
STREAM = "/v1/stream"


class CodecInfo(BaseModel):
    """A codec that is offered.

    Attributes:
        name: Name to ask for.
        codec: Model `family:name`, as tokens have it.
        description: One-line description.
        sample_rate: Sample rate in Hz.
        channels: Channels of the network; a mono codec encodes the channels of a recording separately.
        hop_length: Samples per frame.
        frame_rate: Frames per second.
        strides: Frames per token of each codebook.
        codebook_size: Entries per codebook.
        default_codebooks: Codebooks that are used if nothing else is asked.
        usable_codebooks: Numbers of codebooks that can be asked for.
        bandwidths: Bandwidths in kbps with these.
        block_frames: Frames of the shortest tile.
        tile_frames: Frames of the tile for throughput.
        streams: Directions in which it streams.
        license: Licence of the weights according to their publisher.
        is_loaded: True if the weights are loaded.
    """

    name: str
    codec: str
    description: str
    sample_rate: int
    channels: int
    hop_length: int
    frame_rate: float
    strides: tuple[int, ...]
    codebook_size: int
    default_codebooks: int
    usable_codebooks: tuple[int, ...]
    bandwidths: tuple[float, ...]
    block_frames: int
    tile_frames: int
    streams: tuple[str, ...]
    license: str
    is_loaded: bool

    @classmethod
    def of(cls, name: str, spec: CodecSpec, is_loaded: bool) -> CodecInfo:
        """Describe a codec."""
        fields = {field: getattr(spec, field) for field in cls.model_fields if hasattr(spec, field)}
        own = {"name": name, "codec": spec.identity, "default_codebooks": spec.used_codebooks, "is_loaded": is_loaded}
        return cls(**{**fields, **own, "streams": spec.capabilities.streams})


class Codecs(BaseModel):
    """The codecs that are offered."""

    codecs: list[CodecInfo]


class Health(BaseModel):
    """State of the server: `alive`, `ready`, `loading`, `failed` or `draining`."""

    status: Literal["alive", "ready", "loading", "failed", "draining"]
    open_streams: int


async def list_codecs(request: Request, service: CodecService) -> Response:
    """List the codecs that are offered."""
    client_of(request, service)
    codecs = [CodecInfo.of(name, codec.spec, codec.is_loaded) for name, codec in service.codecs.items()]
    return _json(Codecs(codecs=codecs))


async def health(_: Request, service: CodecService) -> Response:
    """Tell that the process lives."""
    return _json(Health(status="alive", open_streams=service.open_streams))


async def ready(_: Request, service: CodecService) -> Response:
    """Tell whether new streams are taken: 200, or 503 while it loads or drains."""
    if service.is_ready:
        return _json(Health(status="ready", open_streams=service.open_streams))
    failed = "failed" if service.failure else "loading"
    state = Health(status="draining" if service.is_draining else failed, open_streams=service.open_streams)
    return _json(state, 503, {"Retry-After": str(RETRY_SECONDS)})


async def expose(request: Request, service: CodecService) -> Response:
    """Metrics in the format of Prometheus."""
    client_of(request, service)
    return Response(await asyncio.to_thread(service.metrics.exposition), headers={"Content-Type": metrics.CONTENT_TYPE})


async def describe(_: Request, service: CodecService) -> Response:
    """Describe this interface."""
    return Response(json.dumps(openapi(needs_token=service.access.needs_token)), media_type="application/json")


@dataclass(frozen=True)
class Operation:
    """An operation over HTTP.

    Attributes:
        path: Path.
        method: Method.
        handler: Answers a request; its docstring is the summary.
        query: Model of the query.
        takes: Media types of the body, with their models; `None` for bytes.
        gives: Media types of the answer, with their models; `None` for bytes.
        fails: Status codes of failures.
        is_open: It needs no token.
    """

    path: str
    method: Literal["GET", "POST"]
    handler: Handler
    query: type[BaseModel] | None = None
    takes: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    gives: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    fails: Sequence[int] = ()
    is_open: bool = False

    @property
    def summary(self) -> str:
        """First line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]


JSON = whole.JSON_TYPE
OPERATIONS = (
    Operation("/v1/codecs", "GET", list_codecs, gives={JSON: Codecs}),
    Operation(
        "/v1/encode", "POST", whole.encode, whole.EncodeQuery, {"application/octet-stream": None, "audio/*": None},
        {whole.TOKENS_TYPE: None, JSON: protocol.EncodedTokens}, (400, 404, 408, 413, 422, 429, 500, 501, 503),
    ),
    Operation(
        "/v1/decode", "POST", whole.decode, whole.DecodeQuery, {whole.TOKENS_TYPE: None, JSON: protocol.EncodedTokens},
        dict.fromkeys(whole.AUDIO_TYPES.values()), (400, 404, 408, 413, 422, 429, 500, 501, 503),
    ),
    Operation("/health", "GET", health, gives={JSON: Health}, is_open=True),
    Operation("/ready", "GET", ready, gives={JSON: Health}, fails=(503,), is_open=True),
    Operation("/metrics", "GET", expose, gives={"text/plain": None}),
    Operation("/openapi.json", "GET", describe, gives={JSON: None}, is_open=True),
)  # fmt: skip


def routes(service: CodecService, hosts: Hosts) -> list[BaseRoute]:
    """Return the routes of the interface.

    Args:
        service: What is served.
        hosts: Names that the server answers to; pages of other origins are refused.
    """

    def is_foreign(connection: Request | WebSocket) -> bool:
        return not hosts.may_come_from(connection.headers.getlist("origin"), connection.headers.get("host"))

    async def handle(operation: Operation, request: Request) -> Response:
        if is_foreign(request):
            raise ServiceError("pages of other origins may not use this; see --allow-host", "forbidden")
        return await operation.handler(request, service)

    async def counted(operation: Operation, request: Request) -> Response:
        response = await answered(partial(handle, operation))(request)
        service.metrics.requests.labels(operation.path, str(response.status_code)).inc()
        if isinstance(response, Failed):
            service.metrics.rejected.labels(response.code).inc()
        return response

    async def stream(socket: WebSocket) -> None:
        refused: ServiceError | None = None
        try:
            if is_foreign(socket):
                raise ServiceError("pages of other origins may not use this; see --allow-host", "forbidden")
            service.check_not_draining()
            if "authorization" in socket.headers:
                client_of(socket, service)
        except ServiceError as error:
            refused = error
        if refused is not None:
            service.metrics.rejected.labels(refused.code).inc()
            await socket.send_denial_response(Failed(refused))
            return
        await StreamConnection(socket, service).run()

    made: list[BaseRoute] = [
        Route(operation.path, _endpoint(partial(counted, operation)), methods=[operation.method]) for operation in OPERATIONS
    ]
    return [*made, WebSocketRoute(STREAM, stream)]


def _endpoint(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return endpoint


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, headers, whole.JSON_TYPE)


def openapi(*, needs_token: bool = False) -> dict[str, Any]:
    """Describe all operations and messages as OpenAPI 3.1.

    Args:
        needs_token: Operations that are not open need a bearer token.
    """
    models: set[type[BaseModel]] = {
        model for operation in OPERATIONS for model in (*operation.takes.values(), *operation.gives.values()) if model
    }
    models.update(MESSAGES)
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, needs_token)
    paths[STREAM] = {"get": _stream(needs_token)}
    components: dict[str, Any] = {"schemas": definitions["$defs"]}
    if needs_token:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    info = {"title": "blazen-codec", "version": version("blazen-codec-core"), "description": "Neural audio codecs as a service."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(operation: Operation, needs_token: bool) -> dict[str, Any]:
    statuses = sorted({*operation.fails, 403, *([401] if needs_token and not operation.is_open else [])})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "responses": {
            "200": {"description": "The result.", "content": _content(operation.gives)},
            **{str(status): _failure(status) for status in statuses},
        },
    }
    if operation.query:
        described["parameters"] = _parameters(operation.query)
    if operation.takes:
        described["requestBody"] = {"required": True, "content": _content(operation.takes)}
    if needs_token and not operation.is_open:
        described["security"] = [{"bearer": []}]
    return described


def _parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": described}
        for name, described in schema["properties"].items()
    ]


def _content(types: Mapping[str, type[BaseModel] | None]) -> dict[str, Any]:
    return {name: {"schema": _ref(model) if model else {}} for name, model in types.items()}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def _failure(status: int) -> dict[str, Any]:
    codes = ", ".join(code for code, number in STATUS.items() if number == status) or "internal, inference_error, plugin_error"
    return {"description": f"It failed; codes: {codes}.", "content": {JSON: {"schema": _ref(protocol.Error)}}}


def _stream(needs_token: bool) -> dict[str, Any]:
    sent, received = MESSAGES[:CLIENT_MESSAGES], MESSAGES[CLIENT_MESSAGES:]
    described: dict[str, Any] = {
        "summary": "Open a WebSocket, which is one stream; docs/serving.md describes its messages.",
        "operationId": "stream",
        "responses": {"101": {"description": "The WebSocket is open."}, "403": _failure(403), "503": _failure(503)},
        "x-messages": {"client": [_ref(model) for model in sent], "server": [_ref(model) for model in received]},
    }
    if needs_token:
        described["security"] = [{"bearer": []}, {}]  # browsers send it in the first message
        described["responses"]["401"] = _failure(401)
    return described
