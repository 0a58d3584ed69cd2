"""The codecs that a server offers, and its limits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..comparison import serialize, systems
from ..errors import EngineNotAvailable, InvalidInput, reason
from ..evaluation import opus
from ..evaluation.evaluate import RATE_SEPARATOR, Scorer
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..specs import CodecSpec, LoadOptions
from .admission import Line

OPUS_KBPS = (6, 8, 12, 16, 24, 32, 64)
KEPT = 64
"""Number of loaded systems that are cached."""


@dataclass(frozen=True)
class Limits:
    """Limits per client. A request holds the recording and each system's version of it in memory, at most 0.6 GB together.

    Attributes:
        bytes: Largest file in bytes.
        seconds: Longest audio in seconds.
        systems: Most systems per request.
        at_once: Number of clients served at once.
        waiting: Most clients in the queue.
        patience: Timeout in seconds for the next message of a client.
    """

    bytes: int = 100_000_000
    seconds: float = 180.0
    systems: int = 8
    at_once: int = 2
    waiting: int = 16
    patience: float = 30.0


class CompareRequest(BaseModel):
    """Request of a client: the systems, and the name and size of the file that follows."""

    systems: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=255)]
    size: Annotated[int, Field(gt=0)]
    mono: bool = False


def asked(said: str) -> CompareRequest:
    """Parse a request from JSON.

    Raises:
        InvalidInput: The request is invalid.
    """
    try:
        return CompareRequest.model_validate_json(said)
    except ValidationError as error:
        raise InvalidInput(f"invalid request: {reason(error)}") from error


class CodecCatalog:
    """The offered codecs, with loaded weights and worker threads, shared by all clients.

    Args:
        names: Names of codecs; by default all installed ones that have tokens.
        options: Options for loading codecs.
        limits: Limits per client.
        judge: Metrics to compute.
        provide: Gives a codec by name, so that others can share it; by default it is loaded here.

    Raises:
        UnknownCodec: A codec does not exist.
        AmbiguousCodec: Several plugins have a codec of that name.
        NotYetImplemented: A codec has no tokens.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        options: LoadOptions | None = None,
        limits: Limits | None = None,
        judge: Scorer | None = None,
        provide: Callable[[str], DynCodecProvider] | None = None,
    ) -> None:
        self.limits, self.judge = limits or Limits(), judge or Scorer()
        registry = Registry()
        self._specs = {name: registry.find(name).spec for name in (names or _discrete(registry))}
        for spec in self._specs.values():
            spec.check_has_tokens()
        self._provide = provide or systems.cached_providers(registry, options)
        self._ready = functools.lru_cache(KEPT)(self._prepared)
        self.line = Line(self.limits.at_once, self.limits.waiting)
        self.workers = ThreadPoolExecutor(self.limits.at_once, thread_name_prefix="comparing")

    def check(self, asked: CompareRequest) -> None:
        """Raise `CodecError` if a request cannot be served or exceeds a limit. Loads nothing."""
        if asked.size > self.limits.bytes:
            raise InvalidInput(f"the file exceeds the limit of {self.limits.bytes / 1e6:g} MB")
        if len(asked.systems) > self.limits.systems:
            raise InvalidInput(f"{len(asked.systems)} systems are requested; at most {self.limits.systems} are compared at once")
        for name in asked.systems:
            if name.partition(RATE_SEPARATOR)[0] not in (*self._specs, systems.OPUS):
                raise InvalidInput(f"{name} is not offered here")
        systems.systems(asked.systems, self._provide)

    def system(self, name: str) -> systems.System:
        """Return an offered system, loaded and warmed up."""
        return self._ready(name)

    def _prepared(self, name: str) -> systems.System:
        made = systems.system(name, self._provide)
        made.prepare()
        return made

    def offer(self) -> dict[str, Any]:
        """Return the systems, limits, metrics and scales for the page."""
        offered = [_offer(name, spec) for name, spec in self._specs.items()]
        if _has_opus():
            rates = [float(kbps) for kbps in OPUS_KBPS]
            offered.append({"name": systems.OPUS, "about": "libopus", "rates": rates, "rate": 12.0, "ready": True, "must": True})
        return {
            "systems": offered,
            "limits": {"bytes": self.limits.bytes, "seconds": self.limits.seconds, "systems": self.limits.systems},
            "measures": serialize.METRICS,
            "scales": serialize.scales(),
        }


def _discrete(registry: Registry) -> list[str]:
    """Names of the codecs that have tokens, which are what the page compares."""
    return [entry.spec.name for entry in registry if not entry.spec.is_continuous]


def _offer(name: str, spec: CodecSpec) -> dict[str, Any]:
    """Describe a codec for the page; `ready` means that its weights are installed."""
    rates = [round(rate, 4) for rate in spec.bandwidths]
    ready = spec.weights.package is not None
    return {
        "name": name,
        "about": spec.description,
        "rates": rates,
        "rate": round(spec.bandwidth, 4),
        "ready": ready,
        "must": False,
    }


def _has_opus() -> bool:
    try:
        opus.check_available()
    except EngineNotAvailable:
        return False
    return True
