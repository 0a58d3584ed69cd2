"""Pools: many streams on one model, which join, go on and leave at any time.

A pool runs a step for all streams that have a tile ready. What a stream gets is what it would get alone. Streams with the least
left to play go first, and one that fails ends alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar

from .checks import check_tile
from .errors import CodecError, InferenceError, InvalidInput, PoolFull, reason
from .sessions import Closable, DecoderSession, EncoderSession
from .specs import CodecSpec, Latency
from .tokens.tokens import CodecTokens
from .validation import Pcm, is_int

if TYPE_CHECKING:
    from .backend import CodecBackend

In = TypeVar("In")
Out = TypeVar("Out")
MAX_QUEUE = 60.0
"""Seconds of audio that a stream may have queued, by default."""


class PoolArguments(TypedDict, total=False):
    """Options of `CodecBackend.decoder_pool`."""

    latency: Latency
    tile_frames: int | None
    first_tile_frames: int | None
    max_queue: float


class EncoderPoolArguments(PoolArguments, total=False):
    """Options of `CodecBackend.encoder_pool`."""

    bandwidth: float | None
    num_codebooks: int | None


@dataclass(frozen=True)
class PoolOptions:
    """Options of a pool.

    Attributes:
        max_streams: Most open streams.
        tile_frames: Frames of a tile.
        first_tile_frames: Frames of the first tiles of a stream, so that its first output is early.
        first_tiles: Number of these.
        max_queue: Most seconds of audio that a stream may have queued. A tile may always be.
    """

    max_streams: int
    tile_frames: int
    first_tile_frames: int
    first_tiles: int = 4
    max_queue: float = MAX_QUEUE

    @classmethod
    def of(
        cls,
        spec: CodecSpec,
        max_streams: int,
        latency: Latency,
        tile_frames: int | None,
        first_tile_frames: int | None,
        max_queue: float,
    ) -> PoolOptions:
        """Validate options.

        Raises:
            InvalidInput: An option cannot be used.
        """
        if not is_int(max_streams) or max_streams < 1:
            raise InvalidInput(f"max_streams is {max_streams!r}; expected a positive integer")
        if not isinstance(max_queue, int | float) or not max_queue > 0:
            raise InvalidInput(f"max_queue is {max_queue!r}; expected seconds of audio, more than 0")
        tile = check_tile(spec, latency, tile_frames)
        first = tile if first_tile_frames is None else check_tile(spec, latency, first_tile_frames, "first_tile_frames")
        return cls(max_streams, tile, min(first, tile), max_queue=max_queue)

    def tile(self, number: int) -> int:
        """Frames of tile `number` of a stream."""
        return self.first_tile_frames if number < self.first_tiles else self.tile_frames


@dataclass
class PoolStats:
    """Figures of a pool.

    Attributes:
        open: Open streams.
        ready: Streams that have a tile ready.
        max_streams: Most open streams.
        bytes_per_stream: Memory of the state of a stream that runs as a row of a batch, the largest so far; 0 for others.
        steps: Steps that were run.
        rows: Tiles that were run, over all steps.
        bytes_per_bucket: Static memory of the graphs of each number of rows, with `graphs` on a GPU.
    """

    open: int
    ready: int
    max_streams: int
    bytes_per_stream: int
    steps: int
    rows: int
    bytes_per_bucket: Mapping[int, int] = field(default_factory=dict)


class PoolStream(Closable, Generic[In, Out]):
    """One stream of a pool. Its methods may be called from any thread.

    Attributes:
        error: Error that ended the stream.
    """

    def __init__(self, pool: Pool[In, Out]) -> None:
        self._pool = pool
        self.error: CodecError | None = None
        self._tiles_run = 0
        self._ending = self._ended = self._closed = False
        self._begun_at: float | None = None
        self._seconds_out = 0.0
        self._outputs: asyncio.Queue[Out | None] = asyncio.Queue()

    # for the caller

    def push(self, value: In) -> None:
        """Queue the next tokens or audio, of any length. It never waits.

        Raises:
            PoolFull: The queue is full; step the pool, or await `apush`.
            InvalidInput, InvalidTokens: The value does not fit. That ends this stream alone.
        """
        with self._pool.lock:
            self._check_open()
            if self._has_tile and self._queued_seconds >= self._pool.options.max_queue:
                raise PoolFull(f"the stream has {self._queued_seconds:.1f} s queued; step the pool before more is pushed")
            try:
                self._accept(value)
            except CodecError as error:
                self._fail(error)
                raise
        self._pool._wake()

    async def apush(self, value: In) -> None:
        """`push` that waits while the queue is full."""
        while True:
            try:
                return self.push(value)
            except PoolFull:
                await asyncio.sleep(self._pool.poll_seconds)

    def finish(self) -> None:
        """End the signal. The rest of its output comes from the next steps.

        Raises:
            InvalidInput, InvalidTokens: Nothing was pushed, tokens end within a block, or the stream has ended. That ends it.
        """
        with self._pool.lock:
            self._check_open()
            try:
                self._check_complete()
            except CodecError as error:
                self._fail(error)
                raise
            self._ending = True
        self._pool._wake()

    def close(self) -> None:
        """Leave the pool at once; what is queued is dropped."""
        with self._pool.lock:
            self._closed = self._ended = True
            self._pool._remove(self)
        self._deliver(None)

    @property
    def ended(self) -> bool:
        """True once all output has been returned, or the stream has failed or was closed."""
        return self._ended

    async def __aiter__(self) -> AsyncIterator[Out]:
        """Outputs as they come, in `pool.serving()`, each once. An error that ended the stream is raised at the end.

        Raises:
            InvalidInput: The stream is open, but its pool does not run by itself.
        """
        if not self._ended and self._pool._loop is None:
            raise InvalidInput(
                "the pool does not run by itself; use async with pool.serving(), or pool.step() and what it returns"
            )
        while (output := await self._outputs.get()) is not None:
            yield output
        self._outputs.put_nowait(None)  # for others who listen, or do so later
        if self.error:
            raise self.error

    # for the pool

    @abstractmethod
    def _accept(self, value: In) -> None:
        """Check and queue a value."""

    def _check_complete(self) -> None:
        """Raise a `CodecError` unless the signal may end here."""

    @property
    @abstractmethod
    def _queued_seconds(self) -> float:
        """Seconds of audio in the queue."""

    @property
    @abstractmethod
    def _has_tile(self) -> bool:
        """Tell whether a whole tile is queued."""

    @property
    def is_ready(self) -> bool:
        """Tell whether the next step runs this stream."""
        return not self._ended and (self._has_tile or self._ending)

    def seconds_left(self, now: float) -> float:
        """Seconds that a listener still has to play, if it began with the first output; a stream without output is due."""
        return 0.0 if self._begun_at is None else self._begun_at + self._seconds_out - now

    def _check_open(self) -> None:
        if self.error:
            raise InvalidInput(f"the stream has ended: {self.error}")
        if self._ending or self._ended:
            raise InvalidInput("the stream has ended; open another one")

    def _fail(self, error: CodecError) -> None:
        """End the stream with an error."""
        self.error, self._ended = error, True
        self._pool._remove(self)
        self._deliver(None)

    def _deliver(self, output: Out | None) -> None:
        """Pass an output to `async for`, if the pool runs by itself; `None` ends it."""
        if (loop := self._pool._loop) is not None:
            loop.call_soon_threadsafe(self._outputs.put_nowait, output)
        elif output is None:
            self._outputs.put_nowait(None)  # nobody waits


S = TypeVar("S", bound=PoolStream[Any, Any])


class Pool(Closable, Generic[In, Out]):
    """Many streams on one model.

    Args:
        backend: Codec of the streams.
    """

    poll_seconds = 0.005
    """Interval at which `apush` looks at a full queue."""

    def __init__(self, backend: CodecBackend, options: PoolOptions) -> None:
        self.backend, self.options = backend, options
        self.lock = threading.RLock()
        self._stepping = threading.Lock()
        self._streams: dict[int, PoolStream[In, Out]] = {}
        self._steps = self._rows = self._bytes_per_stream = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pushed: asyncio.Event | None = None

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
            if len(self._streams) >= self.options.max_streams:
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
                        self._count(stream, result)
                    outputs[stream] = result
                    stream._deliver(result)
                    if stream._ended:
                        stream._deliver(None)
            except BaseException as error:  # their states are lost
                with self.lock:
                    for stream in [stream for stream in ready if not stream._ended]:
                        stream._fail(InferenceError(f"the step failed: {reason(error)}"))
                raise
            return outputs

    def _count(self, stream: PoolStream[In, Out], output: Out) -> None:
        seconds = self._seconds(output)
        stream._tiles_run += 1
        stream._seconds_out += seconds
        if seconds and stream._begun_at is None:
            stream._begun_at = time.monotonic()
        if stream._ended:
            self._remove(stream)

    def stats(self) -> PoolStats:
        """Figures of the pool now."""
        with self.lock:
            streams = list(self._streams.values())
            ready = sum(stream.is_ready for stream in streams)
            return PoolStats(len(streams), ready, self.options.max_streams, self._bytes_per_stream, self._steps, self._rows)

    def close(self) -> None:
        """Close all streams."""
        for stream in list(self._streams.values()):
            stream.close()

    @asynccontextmanager
    async def serving(self, max_wait_ms: float = 5.0) -> AsyncIterator[Self]:
        """Context in which the pool steps by itself, in a thread. Leaving it closes all streams.

        Args:
            max_wait_ms: Milliseconds that a stream waits for others, so that they share a step.

        Raises:
            InvalidInput: The pool steps by itself already.
        """
        if self._loop is not None:
            raise InvalidInput("the pool runs by itself already; open streams in the context that is there")
        self._loop, self._pushed = asyncio.get_running_loop(), asyncio.Event()
        self._pushed.set()  # for what was pushed before
        server = asyncio.create_task(self._serve(max_wait_ms / 1000))
        try:
            yield self
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            self.close()
            await asyncio.to_thread(self._finish_step)
            self._loop = self._pushed = None

    async def _serve(self, wait: float) -> None:
        assert self._pushed is not None
        while True:
            await self._pushed.wait()
            self._pushed.clear()
            await asyncio.sleep(wait)
            while self.stats().ready:
                with suppress(Exception):  # its streams have it as their error
                    await asyncio.shield(asyncio.to_thread(self.step))

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


class SessionStream(PoolStream[In, Out]):
    """A stream with a session of its own."""

    def __init__(self, pool: SessionPool[In, Out], session: Any) -> None:
        super().__init__(pool)
        self._session, self._sessions = session, pool
        self._queue: list[tuple[In, float]] = []  # parts of the signal, with their seconds

    def _accept(self, value: In) -> None:
        self._queue += [(part, self._sessions.seconds_in(part)) for part in self._sessions.split(value)]

    @property
    def _queued_seconds(self) -> float:
        return sum(seconds for _, seconds in self._queue)

    @property
    def _has_tile(self) -> bool:
        return bool(self._queue)

    def run(self) -> Out:
        """Push the next part to the session; end it after the last."""
        if self._queue:
            output: Out = self._session.push(self._queue.pop(0)[0])
            return output
        self._ended = True
        rest: Out = self._session.finish()
        return rest

    def close_session(self) -> None:
        """Free the session's state."""
        self._session.close()


class SessionPool(Pool[In, Out]):
    """Pool of a codec whose streams cannot run as one batch: each has a session.

    Args:
        open_session: Opens the session of a stream.
        split: Splits what was pushed into parts that run in one step.
        seconds_in: Seconds of audio of a part.
        seconds_out: Seconds of audio of an output.
    """

    def __init__(
        self,
        backend: CodecBackend,
        options: PoolOptions,
        open_session: Callable[[], EncoderSession | DecoderSession],
        split: Callable[[In], list[In]],
        seconds_in: Callable[[In], float],
        seconds_out: Callable[[Out], float],
    ) -> None:
        super().__init__(backend, options)
        self._open_session, self.split, self.seconds_in, self._seconds_out = open_session, split, seconds_in, seconds_out

    def _new_stream(self) -> PoolStream[In, Out]:
        return SessionStream(self, self._open_session())

    def _forget(self, stream: PoolStream[In, Out]) -> None:
        assert isinstance(stream, SessionStream)
        stream.close_session()

    def _run(self, streams: Sequence[PoolStream[In, Out]]) -> Iterator[tuple[PoolStream[In, Out], Out | CodecError]]:
        for stream in streams:
            assert isinstance(stream, SessionStream)
            try:
                yield stream, stream.run()
            except CodecError as error:
                yield stream, error

    def _seconds(self, output: Out) -> float:
        return self._seconds_out(output)
