"""Jobs over shards. A shard's output depends only on the job and the shard number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from ...errors import CodecError, DeviceUnavailable, DiskTrouble, EngineNotAvailable, InferenceError, WeightsUnavailable
from ...plugins.registry import Registry
from ...provider import DynCodecProvider
from ...specs import Half, LoadOptions
from ..items import described
from ..run_state import Failure, ShardResult

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[int], ShardResult]
LONG = 60.0
"""Duration in seconds from which a recording is streamed rather than batched."""
WINDOWS = 4
"""Number of batches of short recordings that are gathered, so that similar lengths share a batch."""
SHORT_TOGETHER = 32
"""Batch size for recordings that are faster in a batch, on devices that otherwise run one signal at a time."""
SHORT_SECONDS = 600.0
"""Most seconds of such recordings that are gathered, unless a single one is longer."""
FATAL_ERRORS = (DeviceUnavailable, DiskTrouble, EngineNotAvailable, WeightsUnavailable)
"""Errors that are independent of the recording, and would recur with the next one."""


class Unreadable(CodecError):
    """A recording could not be read; the cause is `__cause__`. It ends only strict runs."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.__cause__ = cause

    def __reduce__(self) -> tuple[type[Unreadable], tuple[Exception]]:
        assert isinstance(self.__cause__, Exception)
        return type(self), (self.__cause__,)


@dataclass(frozen=True)
class Job(ABC):
    """Picklable work that is divided into shards.

    Attributes:
        codec: `plugin:name`.
        options: Options for loading the codec.
        verb: Description for progress bars.
        half: Half of the codec that the work needs; `None` for both.
    """

    codec: str
    options: LoadOptions
    verb: ClassVar[str]
    half: ClassVar[Half | None] = None

    @abstractmethod
    def open(self, codec: DynCodecProvider) -> Work:
        """Return a function that processes a shard, given its number."""

    def is_there(self, done: ShardResult, count: int) -> bool:
        """Tell whether the output of a shard still exists unchanged.

        Args:
            count: Number of shards.
        """
        return True

    def start(self, device: str | None = None) -> Work:
        """Load the half of a codec that is needed, and return a function that processes a shard with it.

        Args:
            device: Device that overrides the options.
        """
        changes = {"parts": self.half} if device is None else {"parts": self.half, "device": device}
        codec = Registry().provider(self.codec, LoadOptions(**{**self.options.model_dump(), **changes}))
        codec.load()
        return self.open(codec)


@dataclass(frozen=True)
class Batching:
    """Choice of the recordings that are batched.

    Attributes:
        together: Batch size; 1 disables batching.
        longest: Recordings shorter than this may be batched, in seconds.
        seconds: Most seconds that are gathered, unless a single recording is longer.
    """

    together: int
    longest: float
    seconds: float = math.inf

    @classmethod
    def of(cls, codec: DynCodecProvider) -> Batching:
        """Batching that is fastest for a codec."""
        if codec.max_batch_size > 1:
            return cls(codec.max_batch_size, LONG)
        if not codec.short_samples:
            return cls(1, 0.0)
        return cls(SHORT_TOGETHER, codec.short_samples / codec.sample_rate, SHORT_SECONDS)


def each(
    things: Iterable[T],
    batching: Batching,
    seconds: Callable[[T], float | None],
    one: Callable[[T], R],
    several: Callable[[list[T]], list[R]],
) -> Iterator[tuple[T, R | Exception]]:
    """Map `one` or `several` over items, batching short ones; yield `(item, result or error)` in any order.

    Args:
        seconds: Duration of an item that may be batched, else `None`.
        one: Processes a single item.
        several: Processes a list of items. If it fails, `one` processes each of them.
    """

    def alone(thing: T) -> tuple[T, R | Exception]:
        try:
            return thing, one(thing)
        except Exception as error:
            return thing, error

    def at_once(things: list[T]) -> Iterable[tuple[T, R | Exception]]:
        try:
            return zip(things, several(things) if things else [], strict=True)
        except Exception:
            return map(alone, things)

    waiting: list[T] = []
    gathered = 0.0
    for thing in things:
        duration = seconds(thing)
        if batching.together == 1 or duration is None:
            yield alone(thing)
            continue
        waiting.append(thing)
        gathered += duration
        if len(waiting) >= WINDOWS * batching.together or gathered >= batching.seconds:
            yield from at_once(waiting)
            waiting, gathered = [], 0.0
    yield from at_once(waiting)


def failure(id: str, path: str, error: Exception, strict: bool) -> Failure:
    """Return the failure to record for an error, or raise the error if it ends the run."""
    if isinstance(error, FATAL_ERRORS):
        raise error
    cause = error.__cause__ if isinstance(error, Unreadable) and error.__cause__ else error
    if strict:
        kind = type(cause) if isinstance(cause, CodecError) else InferenceError
        raise kind(f"{path}: {cause if isinstance(cause, CodecError) else described(cause)}") from cause
    return Failure(id, path, described(cause))
