"""The pool: which streams a step runs, and stepping by itself with `asyncio`."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ..errors import CodecError, InferenceError, InvalidInput, PoolFull, reason
from ..sessions import Closable
from ..tokens.tokens import CodecTokens
from ..validation import Pcm, is_int
from .options import PoolSettings
from .stream import PoolStream

if TYPE_CHECKING:
    from ..backend import CodecBackend

In = TypeVar("In")
Out = TypeVar("Out")
OnStep = Callable[[float, int], object]


@dataclass
class PoolStats:
    """Figures of a pool.

    Attributes:
        open: Open streams.
        ready: Streams that the next step runs.
        held: Streams that wait until their outputs are taken.
        max_streams: Most open streams.
        bytes_per_stream: Memory of the state of a stream that runs as a row of a batch, the largest so far; 0 for others.
        steps: Steps that were run.
        rows: Tiles that were run, over all steps.
        bytes_per_bucket: Static memory of the graphs of each number of rows, with `graphs` on a GPU.
        queued_seconds: Seconds of audio that wait for a step, over all streams.
    """

    open: int
    ready: int
    held: int
    max_streams: int
    bytes_per_stream: int
    steps: int
    rows: int
    bytes_per_bucket: Mapping[int, int] = field(default_factory=dict)
    queued_seconds: float = 0.0


class Pool(Closable, Generic[In, Out]):
    """Many streams on one model.

    Args:
        backend: Codec of the streams.
    """

    poll_seconds = 0.005
    """Interval at which `apush` looks at a full queue."""

    def __init__(self, backend: CodecBackend, settings: PoolSettings) -> None:
        self.backend, self.settings = backend, settings
        self.lock = threading.RLock()
        self._stepping = threading.Lock()
        self._streams: dict[int, PoolStream[In, Out]] = {}
        self._steps = self._rows = self._bytes_per_stream = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pushed: asyncio.Event | None = None

    def __repr__(self) -> str:
        streams = f"{len(self._streams)} of {self.settings.max_streams} streams open"
        return f"<{type(self).__name__} of {self.backend.spec.identity}, {streams}>"

    @abstractmethod
    def _new_stream(self) -> PoolStream[In, Out]:
        """Create a stream."""

    @abstractmethod
    def _run(self, streams: Sequence[PoolStream[In, Out]]) -> Iterator[tuple[PoolStream[In, Out], Out | CodecError]]:
        """Run one tile of each stream; yield what each gets, in any order."""

    @abstractmethod
    def _seconds(self, output: Out) -> float:
        """Seconds of audio of an output."""

    def _forget(self, stream: PoolStream[In, Out]) -> None:
        """Free what the pool keeps for a stream that leaves."""

    def open(self) -> PoolStream[In, Out]:
        """Open a stream, which joins at the next step.

        Raises:
            PoolFull: `max_streams` streams are open.
            CodecError: Loading the model failed.
        """
        with self.lock:
            if len(self._streams) >= self.settings.max_streams:
                raise PoolFull(f"{len(self._streams)} streams are open, the most of this pool; close one, or open a larger pool")
            stream = self._new_stream()
            self._streams[id(stream)] = stream
            return stream

    def step(self, max_rows: int | None = None) -> dict[PoolStream[In, Out], Out]:
        """Run one tile of each stream that has one ready; those with the least left to play first.

        Args:
            max_rows: Most streams of this step, at least 1; all that are ready if `None`.

        Returns:
            The output of each stream, which may be empty. Streams that failed are missing; see `PoolStream.error`.

        Raises:
            InvalidInput: `max_rows` is no positive integer.
        """
        if max_rows is not None and (not is_int(max_rows) or max_rows < 1):
            raise InvalidInput(f"max_rows is {max_rows!r}; expected a positive integer")
        with self._stepping:
            now = time.monotonic()
            with self.lock:
                ready = [stream for stream in self._streams.values() if stream.is_ready]
                ready = sorted(ready, key=lambda stream: stream.seconds_left(now))[:max_rows]
            outputs: dict[PoolStream[In, Out], Out] = {}
            if not ready:
                return outputs
            self._steps, self._rows = self._steps + 1, self._rows + len(ready)
            try:
                for stream, result in self._run(ready):
                    with self.lock:
                        if stream._closed or stream.error:
                            continue
                        if isinstance(result, CodecError):
                            stream._fail(result)
                            continue
                        seconds = self._count(stream, result)
                    outputs[stream] = result
                    stream._deliver(result, seconds)
                    if stream._ended:
                        stream._deliver_end()
            except BaseException as error:  # their states are lost
                with self.lock:
                    for stream in [stream for stream in ready if not stream._ended]:
                        stream._fail(InferenceError(f"the step failed: {reason(error)}"))
                raise
            return outputs

    def _count(self, stream: PoolStream[In, Out], output: Out) -> float:
        """Count an output; return its seconds of audio."""
        seconds = self._seconds(output)
        stream._tiles_run += 1
        stream._seconds_out += seconds
        if seconds and stream._begun_at is None:
            stream._begun_at = time.monotonic()
        if stream._ended:
            self._remove(stream)
        return seconds

    def stats(self) -> PoolStats:
        """Figures of the pool now."""
        with self.lock:
            streams = list(self._streams.values())
            ready, held = sum(stream.is_ready for stream in streams), sum(stream.is_held for stream in streams)
            most = self.settings.max_streams
            queued = float(sum(stream._queued_seconds for stream in streams))
            sizes = (most, self._bytes_per_stream, self._steps, self._rows)
            return PoolStats(len(streams), ready, held, *sizes, queued_seconds=queued)

    def close(self) -> None:
        """Close all streams."""
        for stream in list(self._streams.values()):
            stream.close()

    @asynccontextmanager
    async def serving(self, max_wait_ms: float = 5.0, on_step: OnStep | None = None) -> AsyncIterator[Self]:
        """Context in which the pool steps by itself, in a thread. Leaving it closes all streams.

        Args:
            max_wait_ms: Milliseconds that a stream waits for others, so that they share a step.
            on_step: Called after each step, in the event loop, with its seconds and the number of streams that it served.

        Raises:
            InvalidInput: The pool steps by itself already.
        """
        if self._loop is not None:
            raise InvalidInput("the pool runs by itself already; open streams in the context that is there")
        self._loop, self._pushed = asyncio.get_running_loop(), asyncio.Event()
        self._pushed.set()  # for what was pushed before
        server = asyncio.create_task(self._serve(max_wait_ms / 1000, on_step))
        try:
            yield self
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            self.close()
            await asyncio.to_thread(self._finish_step)
            self._loop = self._pushed = None

    async def _serve(self, wait: float, on_step: OnStep | None) -> None:
        assert self._pushed is not None
        while True:
            await self._pushed.wait()
            self._pushed.clear()
            await asyncio.sleep(wait)
            while self.stats().ready:
                began = time.monotonic()
                with suppress(Exception):  # its streams have it as their error
                    outputs = await asyncio.shield(asyncio.to_thread(self.step))
                    if on_step is not None:
                        on_step(time.monotonic() - began, len(outputs))

    def _finish_step(self) -> None:
        """Wait for the step that runs."""
        with self._stepping:
            pass

    def _wake(self) -> None:
        loop, pushed = self._loop, self._pushed
        if loop is not None and pushed is not None:
            loop.call_soon_threadsafe(pushed.set)

    def _remove(self, stream: PoolStream[In, Out]) -> None:
        if self._streams.pop(id(stream), None) is not None:
            self._forget(stream)


DecoderPool = Pool[CodecTokens, Pcm]
EncoderPool = Pool[Pcm, CodecTokens]
