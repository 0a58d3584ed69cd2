"""A stream of a pool: its queues on both sides, and its end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import CodecError, InvalidInput, PoolFull
from ..sessions import Closable

if TYPE_CHECKING:
    from .pool import Pool

In = TypeVar("In")
Out = TypeVar("Out")


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
        self._outputs: asyncio.Queue[tuple[Out, float] | None] = asyncio.Queue()
        self._untaken = 0
        self._untaken_seconds = 0.0

    def __repr__(self) -> str:
        state = f"ended by {self.error!r}" if self.error else "ended" if self.ended else "held" if self.is_held else "open"
        return f"<{type(self).__name__} of {self._pool.backend.spec.identity}, {state}>"

    # for the caller

    def push(self, value: In) -> None:
        """Queue the next tokens or audio, of any length. It never waits.

        Raises:
            PoolFull: The queue is full; step the pool, take the stream's outputs, or await `apush`.
            InvalidInput, InvalidTokens: The value does not fit. That ends this stream alone.
        """
        with self._pool.lock:
            self._check_open()
            if self._has_tile and self._queued_seconds >= self._pool.settings.max_queue:
                cure = "take its outputs" if self.is_held else "step the pool"
                raise PoolFull(f"the stream has {self._queued_seconds:.1f} s queued; {cure} before more is pushed")
            try:
                self._accept(value)
            except CodecError as error:
                self._fail(error)
                raise
        self._pool._wake()

    async def apush(self, value: In) -> None:
        """`push` that waits while the queue is full, also because nobody takes the outputs."""
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
        """Leave the pool at once; queued input is dropped. Outputs that are ready can still be taken."""
        with self._pool.lock:
            self._closed = self._ended = True
            self._pool._remove(self)
        self._deliver_end()

    @property
    def ended(self) -> bool:
        """True once all output has been returned, or the stream has failed or was closed."""
        return self._ended

    async def __aiter__(self) -> AsyncIterator[Out]:
        """Outputs as they come, in `pool.serving()`, each once. An error that ended the stream is raised at the end.

        A stream waits while `max_queue` seconds of its outputs have not been taken; the other streams go on.

        Raises:
            InvalidInput: The stream is open, but its pool does not run by itself.
        """
        if not self._ended and self._pool._loop is None:
            raise InvalidInput(
                "the pool does not run by itself; use async with pool.serving(), or pool.step() and what it returns"
            )
        while (item := await self._outputs.get()) is not None:
            output, seconds = item
            self._take(seconds)
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
        return not self._ended and not self.is_held and (self._has_tile or self._ending)

    @property
    def is_held(self) -> bool:
        """Tell whether the stream waits until its outputs are taken."""
        return self._untaken > 0 and self._untaken_seconds >= self._pool.settings.max_queue

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
        self._deliver_end()

    def _deliver(self, output: Out, seconds: float) -> None:
        """Pass an output to `async for`, if the pool runs by itself."""
        if (loop := self._pool._loop) is not None:
            with self._pool.lock:
                self._untaken, self._untaken_seconds = self._untaken + 1, self._untaken_seconds + seconds
            loop.call_soon_threadsafe(self._outputs.put_nowait, (output, seconds))

    def _take(self, seconds: float) -> None:
        """Count an output as taken; the stream may go on."""
        with self._pool.lock:
            was_held, self._untaken = self.is_held, self._untaken - 1
            self._untaken_seconds = self._untaken_seconds - seconds if self._untaken else 0.0
            if was_held and not self.is_held:
                self._pool._wake()

    def _deliver_end(self) -> None:
        """End `async for`."""
        if (loop := self._pool._loop) is not None:
            loop.call_soon_threadsafe(self._outputs.put_nowait, None)
        else:
            self._outputs.put_nowait(None)  # nobody waits
