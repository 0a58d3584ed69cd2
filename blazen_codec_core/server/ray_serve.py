"""The interface for programs as an application of Ray Serve: replicas with pools, on one machine or many.

`serve run blazen_codec_core.server.ray_serve:build codecs=snac_24khz max_replicas=8` starts it; Ray's proxies pass WebSockets on.
A stream stays at the replica that took it. Ray counts it as one request until it ends, so replicas are added as streams are
opened, and one that is taken away first waits for its streams.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.applications import Starlette

from ..installation import missing
from ..specs import LoadOptions
from .api import Access, ClientLimits, CodecService, ServiceLimits
from .api.access import check_tokens, read_tokens
from .app import application
from .hosts import Hosts

NAME = "codecs"
METRICS_SECONDS = 1.0
"""Interval in seconds at which replicas report their open streams."""


class Arguments(BaseModel):
    """Arguments of the application.

    Attributes:
        codecs: Names of the codecs that are offered, separated by commas.
        tokens: Bearer tokens, separated by commas; by default those of `BLAZEN_CODEC_TOKENS`, which no configuration shows.
        hosts: Names that clients reach it by, separated by commas; this machine's names and addresses are always allowed.
        device: Device of each replica.
        dtype: Precision.
        weights: Weights, instead of the published ones.
        num_cpus: Processors of a replica; one runs its steps.
        num_gpus: GPUs of a replica, or the part of one.
        min_replicas: Fewest replicas.
        max_replicas: Most replicas.
        target_streams: Open streams per replica above which another one is started.
        max_streams: Most open streams of a replica.
        upscale_seconds: Seconds that there must be too many streams before a replica is added.
        downscale_seconds: Seconds that there must be too few before one is taken away.
        drain_seconds: Seconds that a replica that is taken away waits for its streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codecs: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "float32"
    weights: str | None = None
    num_cpus: Annotated[float, Field(gt=0)] = 1.0
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 4
    target_streams: Annotated[int, Field(ge=1)] = 8
    max_streams: Annotated[int, Field(ge=1)] = 64
    upscale_seconds: Annotated[float, Field(ge=0)] = 5.0
    downscale_seconds: Annotated[float, Field(ge=0)] = 60.0
    drain_seconds: Annotated[float, Field(ge=0)] = 600.0

    @field_validator("codecs", "tokens", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


@functools.cache
def service_of(arguments: Arguments) -> CodecService:
    """The service of this process, a replica."""
    options = LoadOptions.of(device=arguments.device, dtype=arguments.dtype, weights=arguments.weights)
    limits = ServiceLimits(streams=arguments.max_streams, drain_seconds=arguments.drain_seconds)
    tokens = check_tokens(arguments.tokens, "tokens") or read_tokens(None)
    access = Access(tokens, ClientLimits(streams=arguments.max_streams))
    return CodecService(arguments.codecs, options, limits, access)


def build(arguments: Arguments) -> Any:
    """Build the application, `ray.serve.Application`, for `serve run`, `serve deploy` and `ray.serve.run`.

    Raises:
        EngineNotAvailable: Ray Serve is not installed.
        CodecError: A codec does not exist, or an argument is invalid.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise missing("the application needs Ray Serve", "ray", "service") from error
    service_of(arguments)  # whose errors are then raised here, and not by each replica

    def replica_application() -> Starlette:
        return application(None, Hosts("0.0.0.0", arguments.hosts), service_of(arguments))

    class Replica:
        def __init__(self) -> None:  # no streams before the codecs are loaded; a replica whose codecs cannot be is not started
            for codec in service_of(arguments).codecs.values():
                codec.load()

    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": arguments.num_cpus, "num_gpus": arguments.num_gpus},
        max_ongoing_requests=2 * arguments.max_streams,  # others ask for health and metrics; the service refuses streams itself
        graceful_shutdown_timeout_s=arguments.drain_seconds,
        autoscaling_config={
            "min_replicas": arguments.min_replicas,
            "max_replicas": max(arguments.min_replicas, arguments.max_replicas),
            "target_ongoing_requests": arguments.target_streams,
            "upscale_delay_s": arguments.upscale_seconds,
            "downscale_delay_s": arguments.downscale_seconds,
            "metrics_interval_s": METRICS_SECONDS,
            "look_back_period_s": 2 * METRICS_SECONDS,
        },
    )
    return deployment(serve.ingress(replica_application)(Replica)).bind()
