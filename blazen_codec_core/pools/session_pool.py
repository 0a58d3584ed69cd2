"""Pools of codecs whose streams cannot run as one batch: each has a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CodecError
from ..sessions import DecoderSession, EncoderSession
from .options import PoolSettings
from .pool import Pool
from .stream import PoolStream

if TYPE_CHECKING:
    from ..backend import CodecBackend

In = TypeVar("In")
Out = TypeVar("Out")


class SessionStream(PoolStream[In, Out]):
    """A stream with a session of its own."""

    _pool: SessionPool[In, Out]

    def __init__(self, pool: SessionPool[In, Out], session: Any) -> None:
        super().__init__(pool)
        self._session = session
        self._queue: list[tuple[In, float]] = []  # parts of the signal, with their seconds

    def _accept(self, value: In) -> None:
        self._queue += [(part, self._pool.seconds_in(part)) for part in self._pool.split(value)]

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
        settings: PoolSettings,
        open_session: Callable[[], EncoderSession | DecoderSession],
        split: Callable[[In], list[In]],
        seconds_in: Callable[[In], float],
        seconds_out: Callable[[Out], float],
    ) -> None:
        super().__init__(backend, settings)
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
