"""The codecs that a server offers, and its limits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..comparison import serialize, systems
from ..errors import EngineNotAvailable, InvalidInput, reason
from ..evaluation import opus
from ..evaluation.evaluate import RATE_SEPARATOR, Scorer
from ..plugins.registry import Registry
from ..specs import CodecSpec, LoadOptions
from .admission import Line

OPUS_KBPS = (6, 8, 12, 16, 24, 32, 64)
KEPT = 64
"""Systems that are kept ready."""


@dataclass(frozen=True)
class Limits:
    """Limits of a visitor's request. A visit holds its recording and the version of each system, at most 0.6 GB together.

    Attributes:
        bytes: Of a file.
        seconds: Of audio in it.
        systems: At once.
        at_once, waiting: Visitors that are served, and that wait for it.
        patience: Seconds without a word from a visitor who has to say something.
    """

    bytes: int = 100_000_000
    seconds: float = 180.0
    systems: int = 8
    at_once: int = 2
    waiting: int = 16
    patience: float = 30.0


class CompareRequest(BaseModel):
    """Request of a visitor: the systems, and the name and size of the file that follows."""

    systems: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=255)]
    size: Annotated[int, Field(gt=0)]
    mono: bool = False


def asked(said: str) -> CompareRequest:
    """Read the request of a visitor from JSON.

    Raises:
        InvalidInput: It is nothing that can be asked for.
    """
    try:
        return CompareRequest.model_validate_json(said)
    except ValidationError as error:
        raise InvalidInput(f"that cannot be asked for: {reason(error)}") from error


class CodecCatalog:
    """The codecs that are offered, with their weights, and the threads that run them; all visitors share it.

    Args:
        names: Of the codecs; all that are installed if there are none.

    Raises:
        UnknownCodec, AmbiguousCodec: There is no such codec.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        options: LoadOptions | None = None,
        limits: Limits | None = None,
        judge: Scorer | None = None,
    ) -> None:
        self.limits, self.judge = limits or Limits(), judge or Scorer()
        registry = Registry()
        self._specs = {name: registry.find(name).spec for name in (names or [entry.spec.name for entry in registry])}
        self._provide = systems.cached_providers(registry, options)
        self._ready = functools.lru_cache(KEPT)(self._prepared)
        self.line = Line(self.limits.at_once, self.limits.waiting)
        self.workers = ThreadPoolExecutor(self.limits.at_once, thread_name_prefix="comparing")

    def check(self, asked: CompareRequest) -> None:
        """Raises `CodecError` where that cannot be done, or is more than is allowed; the message says why. Nothing is loaded."""
        if asked.size > self.limits.bytes:
            raise InvalidInput(f"the file is larger than {self.limits.bytes / 1e6:g} MB, the most that is taken here")
        if len(asked.systems) > self.limits.systems:
            raise InvalidInput(f"{len(asked.systems)} systems are asked for; {self.limits.systems} at most are compared at once")
        for name in asked.systems:
            if name.partition(RATE_SEPARATOR)[0] not in (*self._specs, systems.OPUS):
                raise InvalidInput(f"{name} is not offered here")
        systems.systems(asked.systems, self._provide)

    def system(self, name: str) -> systems.System:
        """One of those, ready: loaded, and run once."""
        return self._ready(name)

    def _prepared(self, name: str) -> systems.System:
        made = systems.system(name, self._provide)
        made.prepare()
        return made

    def offer(self) -> dict[str, Any]:
        """Systems, limits, measures and scales that the page has to know."""
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


def _offer(name: str, spec: CodecSpec) -> dict[str, Any]:
    """A codec as the page offers it; `ready` says that its weights are there for certain."""
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
