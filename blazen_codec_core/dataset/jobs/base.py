"""Work that is cut into shards. Each depends on its number alone: whoever does it, and however often, writes the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from ...errors import CodecError, DeviceUnavailable, DiskTrouble, EngineNotAvailable, InferenceError, WeightsUnavailable
from ...plugins.registry import Registry
from ...provider import DynCodecProvider
from ...specs import LoadOptions
from ..items import described
from ..run_state import Failure, ShardResult

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[int], ShardResult]
LONG = 60.0
"""Seconds from which a recording is streamed even where the device runs several side by side."""
WINDOWS = 4
"""Batches of shorter recordings that are gathered, so that those of like length run together."""
SHORT_TOGETHER = 32
"""Recordings shorter than a tile that are batched on a device that otherwise runs one signal at a time."""
FATAL_ERRORS = (DeviceUnavailable, DiskTrouble, EngineNotAvailable, WeightsUnavailable)
"""Errors of a codec or a disk that have nothing to do with a recording, and would come back with the next one."""


class Unreadable(CodecError):
    """A recording could not be read, for whatever reason; it is the cause. It never ends a run that is not strict."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.__cause__ = cause

    def __reduce__(self) -> tuple[type[Unreadable], tuple[Exception]]:
        assert isinstance(self.__cause__, Exception)
        return type(self), (self.__cause__,)


@dataclass(frozen=True)
class Job(ABC):
    """Work that is cut into shards, and can be sent to another process or machine.

    Attributes:
        codec: `plugin:name`.
        options: How it is loaded.
        verb: What is done, for people.
    """

    codec: str
    options: LoadOptions
    verb: ClassVar[str]

    @abstractmethod
    def open(self, codec: DynCodecProvider) -> Work:
        """Return a function that does a shard, given its number."""

    def is_there(self, done: ShardResult, count: int) -> bool:
        """Tell whether what became of a shard is still there, as it was written.

        Args:
            count: Of shards that there are.
        """
        return True

    def start(self, device: str | None = None) -> Work:
        """Load a codec of the job's own and return a function that does a shard with it.

        Args:
            device: In place of the one in the options.
        """
        options = self.options if device is None else LoadOptions(**{**self.options.model_dump(), "device": device})
        codec = Registry().provider(self.codec, options)
        codec.load()
        return self.open(codec)


def each(
    things: Iterable[T], together: int, short: Callable[[T], bool], one: Callable[[T], R], several: Callable[[list[T]], list[R]]
) -> Iterator[tuple[T, R | Exception]]:
    """Yield each thing with its result, or with the error that it ends in, in any order.

    Args:
        together: How many the device runs side by side; more than 1 to have short ones done so.
        one: Does a single thing.
        several: Does some at once. Where that fails, they are done one by one.
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
    for thing in things:
        if together > 1 and short(thing):
            waiting.append(thing)
        else:
            yield alone(thing)
        if len(waiting) >= WINDOWS * together:
            yield from at_once(waiting)
            waiting = []
    yield from at_once(waiting)


def failure(id: str, path: str, error: Exception, strict: bool) -> Failure:
    """Return the failure to note for an error, or raise the error if it ends the run."""
    if isinstance(error, FATAL_ERRORS):
        raise error
    cause = error.__cause__ if isinstance(error, Unreadable) and error.__cause__ else error
    if strict:
        kind = type(cause) if isinstance(cause, CodecError) else InferenceError
        raise kind(f"{path}: {cause if isinstance(cause, CodecError) else described(cause)}") from cause
    return Failure(id, path, described(cause))
