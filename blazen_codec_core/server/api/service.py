"""The service behind the interface for programs: codecs, their pools, limits, and whether it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from ...errors import CodecError, ServiceError, UnknownCodec, WeightsUnavailable
from ...plugins.registry import Registry
from ...provider import DynCodecProvider
from ...specs import CodecSpec, LoadOptions
from ...weights import check_at_hand
from ..admission import Line, QueueFull
from .access import Access
from .metrics import Metrics
from .pools import PoolKey, SharedPools

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of a server.

    Attributes:
        streams: Most open streams.
        pools: Most sets of options that open streams have together.
        queue_seconds: Most seconds of audio that a stream has queued on either side.
        wait_ms: Milliseconds that a stream waits for others, so that they share a step.
        idle_seconds: Seconds without a message until a stream that has not ended is ended.
        stall_seconds: Seconds that a client may take to receive one message, or to send its first.
        bytes: Largest body of a request in bytes.
        seconds: Longest audio of a request in seconds.
        jobs: Requests that are worked on at once.
        waiting: Requests that may wait for that.
        drain_seconds: Seconds that open streams have to end in, once the server drains.
    """

    streams: int = 256
    pools: int = 16
    queue_seconds: float = 10.0
    wait_ms: float = 5.0
    idle_seconds: float = 60.0
    stall_seconds: float = 30.0
    bytes: int = 100_000_000
    seconds: float = 3600.0
    jobs: int = 2
    waiting: int = 16
    drain_seconds: float = 30.0


class CodecService:
    """The codecs that programs may use, with their pools. For one event loop.

    Args:
        names: Names of codecs; by default all installed ones that have tokens and whose weights are on this machine.
        options: Options for loading codecs.
        limits: Limits of the server.
        access: Who may use it.
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
        limits: ServiceLimits | None = None,
        access: Access | None = None,
        provide: Callable[[str], DynCodecProvider] | None = None,
    ) -> None:
        self.limits, self.access = limits or ServiceLimits(), access or Access()
        options, self.registry = options or LoadOptions(), Registry()
        provide = provide or partial(self.registry.provider, options=options)
        offered = [self.registry.find(name).spec for name in names] if names else _at_hand(self.registry, options)
        for spec in offered:
            spec.check_has_tokens()
        self.codecs = {name: provide(name) for name in names or [spec.name for spec in offered]}
        self._names = {
            known: name for name, codec in self.codecs.items() for known in (codec.spec.name, codec.spec.identity, name)
        }
        self._preloaded = list(names)
        self._loading: asyncio.Task[None] | None = None
        self._drain = asyncio.Event()
        self._streams = self._jobs = 0
        self._ends: set[Callable[[], object]] = set()
        self.pools = SharedPools(
            self.limits.pools, self.limits.streams, self.limits.queue_seconds, self.limits.wait_ms, self._on_step
        )
        self.metrics = Metrics(self.pools.stats)
        self.line = Line(self.limits.jobs, self.limits.waiting)
        self.workers = ThreadPoolExecutor(self.limits.jobs, thread_name_prefix="whole recordings")
        self.failure: CodecError | None = None
        """Error of loading a codec at the start."""

    def _on_step(self, key: PoolKey, seconds: float, rows: int) -> None:
        self.metrics.steps.labels(*key.labels).observe(seconds)
        self.metrics.rows.labels(*key.labels).inc(rows)

    def find(self, name: str) -> tuple[str, DynCodecProvider]:
        """Return the name and the provider of an offered codec; other names are not looked up.

        Raises:
            UnknownCodec: It is not offered.
        """
        if (known := self._names.get(name)) is None:
            raise UnknownCodec(f"{name[:200]} is not offered here; GET /v1/codecs lists what is: {', '.join(self.codecs)}")
        return known, self.codecs[known]

    # readiness

    async def start(self) -> None:
        """Begin to load the codecs that were named; the server is not ready before."""
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        for name in self._preloaded:
            try:
                await self.codecs[name].aload()
            except CodecError as error:
                self.failure = error
                log.error("%s cannot be loaded: %s", name, error)
                return

    @property
    def is_ready(self) -> bool:
        """True if all named codecs are loaded and the server does not drain."""
        loaded = self._loading is not None and self._loading.done()
        return loaded and self.failure is None and not self.is_draining

    @property
    def is_draining(self) -> bool:
        """True if no new streams are opened."""
        return self._drain.is_set()

    @property
    def open_streams(self) -> int:
        """Number of open streams."""
        return self._streams

    @property
    def is_busy(self) -> bool:
        """True if streams are open, or requests in progress."""
        return bool(self._streams or self._jobs)

    def drain(self) -> None:
        """Open no more streams and take no more requests; those that are open go on."""
        self._drain.set()

    def end_streams(self) -> None:
        """End all streams that are open, with an error."""
        for end in list(self._ends):
            end()

    def check_not_draining(self) -> None:
        """Raise `ServiceError` (`draining`) if the server drains."""
        if self.is_draining:
            raise ServiceError("the server is about to end; try another one, or again later", "draining")

    @contextmanager
    def stream_place(self, end: Callable[[], object]) -> Iterator[None]:
        """Count an open stream in the block.

        Args:
            end: Ends the stream, when the time to drain is over.

        Raises:
            ServiceError: The server drains (`draining`), or has as many streams as it may have (`busy`).
        """
        self.check_not_draining()
        if self._streams >= self.limits.streams:
            raise ServiceError(f"{self._streams} streams are open, the most of this server; try again later", "busy")
        self._streams += 1
        self._ends.add(end)
        try:
            yield
        finally:
            self._streams -= 1
            self._ends.discard(end)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Count work in the block, whose end the server waits for while it drains."""
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1

    @asynccontextmanager
    async def job_place(self, client: str) -> AsyncIterator[None]:
        """Wait for the turn of a request, which ends on exit.

        Raises:
            ServiceError: The server drains (`draining`), too many requests wait (`busy`), or this client has too many
                (`too_many`).
        """
        self.check_not_draining()

        with self.progress(), self.access.request(client):
            try:
                async with self.line.turn(lambda _: asyncio.sleep(0)):
                    yield
            except QueueFull as error:
                raise ServiceError(str(error), "busy") from error

    async def close(self) -> None:
        """Close all pools and threads."""
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading
        await self.pools.close()
        self.workers.shutdown(wait=False, cancel_futures=True)


def _at_hand(registry: Registry, options: LoadOptions) -> list[CodecSpec]:
    """Specs of the codecs that have tokens, and weights on this machine."""
    found = []
    for entry in registry:
        with suppress(WeightsUnavailable):
            if not entry.spec.is_continuous:
                check_at_hand(entry.spec, options.model_copy(update={"offline": True}))
                found.append(entry.spec)
    return found
