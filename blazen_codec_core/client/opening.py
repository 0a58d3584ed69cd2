"""Streams that are about to be opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .streams import AsyncStream, Stream

In = TypeVar("In")
Out = TypeVar("Out")


class StreamOpening(Generic[In, Out]):
    """A stream that `async with` opens as an `AsyncStream`, and `with` as a `Stream`; leaving the block closes it.

    Args:
        make: Makes the stream, in the event loop in which it runs.
    """

    def __init__(self, make: Callable[[], AsyncStream[In, Out]]) -> None:
        self._make = make
        self._async: AsyncStream[In, Out] | None = None
        self._plain: Stream[In, Out] | None = None

    async def __aenter__(self) -> AsyncStream[In, Out]:
        self._async = self._make()
        return await self._async.open()

    async def __aexit__(self, *details: object) -> None:
        assert self._async is not None
        await self._async.aclose()

    def __enter__(self) -> Stream[In, Out]:
        self._plain = Stream(self._make)
        return self._plain

    def __exit__(self, *details: object) -> None:
        assert self._plain is not None
        self._plain.close()
