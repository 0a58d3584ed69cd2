"""Sessions: one signal, encoded or decoded in chunks of any size."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

import numpy as np

from . import cancellation
from .errors import InvalidInput
from .tokens.tokens import CodecTokens
from .validation import Pcm

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
S = TypeVar("S", bound="Session[Any, Any]")
P = ParamSpec("P")


class Closable(ABC):
    """Object that leaving `with` closes."""

    @abstractmethod
    def close(self) -> None:
        """Close it; it may be closed again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, as it holds signals in progress; pickle the provider and open "
            "another one from it"
        )


class Session(Closable, Generic[In, Out]):
    """One signal in chunks. It takes one call at a time; a call beside another one raises `InvalidInput`.

    Subclasses implement `_push` and `_finish`, which run only while the session is open, and never two at a time.
    """

    def __init__(self) -> None:
        self._call = threading.Lock()
        self._ended = False

    def push(self, chunk: In) -> Out:
        """Push the next chunk; return what is ready."""
        with self._entered():
            return self._push(chunk)

    def finish(self) -> Out:
        """End the signal and return the rest."""
        with self._entered():
            rest = self._finish()
            self._ended = True
            return rest

    def push_last(self, chunk: In) -> Out:
        """`push` and `finish` in one call, which may be faster."""
        with self._entered():
            rest = self._push_last(chunk)
            self._ended = True
            return rest

    async def apush(self, chunk: In) -> Out:
        """`push` in a thread. If its task is cancelled, the session ends, as the output is lost."""
        return await self._in_thread(partial(self.push, chunk))

    async def afinish(self) -> Out:
        """`finish` in a thread; see `apush`."""
        return await self._in_thread(self.finish)

    async def apush_last(self, chunk: In) -> Out:
        """`push_last` in a thread; see `apush`."""
        return await self._in_thread(partial(self.push_last, chunk))

    async def _in_thread(self, call: Callable[[], Out]) -> Out:
        import asyncio  # here, because listing codecs does not need it

        try:
            return await cancellation.run_in_thread(call)
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """End the signal without its rest, and free its state. A call in another thread frees it when it is done."""
        self._ended = True
        self._free_if_idle()

    @property
    def ended(self) -> bool:
        """True after `finish`, `push_last` or `close`, or if running the model failed."""
        return self._ended

    @property
    @abstractmethod
    def latency_samples(self) -> int:
        """Maximum latency: most samples that can be in the session without their output being out."""

    @abstractmethod
    def _push(self, chunk: In) -> Out:
        """Implement `push`."""

    @abstractmethod
    def _finish(self) -> Out:
        """Implement `finish`."""

    @abstractmethod
    def _push_last(self, chunk: In) -> Out:
        """Implement `push_last`."""

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"open, of at most {self.latency_samples} samples of latency"
        return f"<{type(self).__name__}, {state}>"

    def _free(self) -> None:
        """Free what an ended session no longer needs. It may be called again."""

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Context of a call, if no other runs and the session is open."""
        if not self._call.acquire(blocking=False):
            raise InvalidInput("another call to this session is running; make calls one after the other, or open another session")
        try:
            if self._ended:
                raise InvalidInput("the session has ended; open another one")
            yield
        finally:
            self._call.release()
            if self._ended:  # looked at after the release, so that a `close` that came too early to free is not lost
                self._free_if_idle()

    def _free_if_idle(self) -> None:
        """Free the state, unless a call is running, which does so at its end."""
        if self._call.acquire(blocking=False):
            try:
                self._free()
            finally:
                self._call.release()


def ends_on_failure(run: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorator of methods that change a session's state; an error or an interrupt leaves it incomplete, and ends the session."""

    @wraps(run)
    def guarded(session: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return run(session, *args, **kwargs)
        except BaseException:
            session._ended = True
            raise

    return guarded


class EncoderSession(Session[Any, CodecTokens]):
    """Streaming encoder of one signal.

    `push` takes floating point audio, nominally -1 … 1, `(channels, samples)` or `(samples,)`, which may be empty, and returns
    the tokens that are ready, often none.

    Raises:
        InvalidInput: The audio does not fit the session, no audio was pushed before `finish`, or the session has ended.
        CodecError: Running the model failed, which ends the session.
    """

    def _push_last(self, chunk: Any) -> CodecTokens:
        return CodecTokens.concat([self._push(chunk), self._finish()])

    @property
    @abstractmethod
    def first_samples(self) -> int:
        """Number of samples that must be pushed before the first tokens come out."""


class DecoderSession(Session[CodecTokens, Pcm]):
    """Streaming decoder of one signal.

    `push` takes tokens in whole blocks of frames, and returns the audio that is ready, float32 `(channels, samples)`. In total
    there are the tokens' `num_samples`.

    Raises:
        InvalidTokens: The tokens are not of this model or of another recording, have a loudness, or end within a block.
        InvalidInput: The session has ended.
        CodecError: Running the model failed, which ends the session.
    """

    def _push_last(self, chunk: CodecTokens) -> Pcm:
        return np.concatenate([self._push(chunk), self._finish()], axis=1)

    @property
    @abstractmethod
    def first_frames(self) -> int:
        """Number of frames that must be pushed before the first audio comes out, in whole blocks."""
