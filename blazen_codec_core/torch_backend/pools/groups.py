"""Streams whose states are kept together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ...nn.layers.base import State
from .arena import Arena

if TYPE_CHECKING:
    from .batched import BatchedStream


class Group(ABC):
    """Streams whose states have equal signatures.

    Args:
        key: Key of groups whose streams can run together.
        signature: Signature of the states.

    Attributes:
        settled: Kinds of tiles with which a step keeps this signature.
    """

    def __init__(self, key: Any, signature: Any) -> None:
        self.key, self.signature = key, signature
        self.settled: set[Any] = set()

    @property
    @abstractmethod
    def streams(self) -> Collection[BatchedStream]:
        """The streams, in the order of their states."""

    @abstractmethod
    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        """Add streams whose states are the rows of a state."""

    @abstractmethod
    def take(self, streams: Sequence[BatchedStream]) -> State:
        """Remove streams; return the state of these, in their order."""

    def remove(self, stream: BatchedStream) -> None:
        """Remove a stream that has ended."""
        self.take([stream])


class JoinedGroup(Group):
    """Streams whose states are the rows of one state."""

    def __init__(self, key: Any, signature: Any) -> None:
        super().__init__(key, signature)
        self._streams: list[BatchedStream] = []
        self.state: State | None = None

    @property
    def streams(self) -> Collection[BatchedStream]:
        return self._streams

    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        self.state = state if self.state is None else type(state).join([self.state, state])
        self._streams += streams

    def take(self, streams: Sequence[BatchedStream]) -> State:
        assert self.state is not None
        rows = [self._streams.index(stream) for stream in streams]
        if rows == list(range(len(self._streams))):
            state, self.state, self._streams = self.state, None, []
            return state
        state, left = self.state.take(rows), [row for row in range(len(self._streams)) if row not in set(rows)]
        self.state = self.state.take(left) if left else None
        self._streams = [self._streams[row] for row in left]
        return state


class ArenaGroup(Group):
    """Streams whose states are in an arena.

    Args:
        kind: Kind of the tiles that its graphs run; see `BatchedStream.kind_of_tile`.
    """

    def __init__(self, key: Any, signature: Any, arena: Arena, kind: Any) -> None:
        super().__init__(key, signature)
        self.arena, self.kind = arena, kind
        self.slots: dict[BatchedStream, int] = {}

    @property
    def streams(self) -> Collection[BatchedStream]:
        return self.slots

    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        self.slots.update(zip(streams, self.arena.put(state), strict=True))

    def take(self, streams: Sequence[BatchedStream]) -> State:
        return self.arena.take([self.slots.pop(stream) for stream in streams])

    def remove(self, stream: BatchedStream) -> None:
        self.arena.free([self.slots.pop(stream)])
