"""Fork safety: per-process objects, and forks that wait for critical sections of other threads."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")
_all: weakref.WeakSet[Anew[Any]] = weakref.WeakSet()
LONGEST_WAIT = 180.0
"""Timeout in seconds of a fork that waits for other threads, which may in turn wait for the fork."""
GIVE_WAY = 10.0
"""Timeout in seconds for which new critical sections give way to a waiting fork."""
_LOOK = 0.001
"""Polling interval in seconds. No lock is used, because an interrupt at the wrong moment would leave it locked."""
_LONGEST_END = 1.0
"""Timeout in seconds of a fork that waits for ended threads, whose libraries still clean up."""
_TASKS = Path("/proc/self/task")
_MANY_THREADS = 64
_forked = False
_forks: dict[int, float] = {}
"""Threads that are about to fork, with the time until which others give way."""
_busy: dict[int, weakref.ref[_Busy]] = {}
_were_busy: set[int] = set()
"""Native ids of threads that were in a critical section."""


class _Busy:
    """Marker that a thread is in a critical section. It lives as long as the frame that holds it, however that frame ends."""

    def __init__(self) -> None:
        self.thread, key = threading.get_ident(), id(self)
        _busy[key] = weakref.ref(self, lambda _: _busy.pop(key, None))

    def end(self) -> None:
        """Leave the critical section."""
        _busy.pop(id(self), None)


class Anew(Generic[T]):
    """A per-process object, such as a lock or a thread pool; a forked child gets a new one.

    In the child, an inherited lock may be held by a thread that does not exist, and a pool may wait for such threads.

    Args:
        make: Creates the object at its first use in each process.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}
        _all.add(self)

    @property
    def own(self) -> T:
        """Object of this process, shared by its threads."""
        made = self._made.get("own")
        return self._made.setdefault("own", self._make()) if made is None else made

    def forget(self) -> None:
        """Drop the object; the next access creates a new one."""
        self._made.clear()


class cached_property(Generic[T]):  # noqa: N801 as Python's own
    """Equivalent of Python 3.12's `functools.cached_property`, which is computed without a lock.

    Such a lock could stay locked for ever in a forked child.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        made = self._compute(instance)
        instance.__dict__[self._name] = made
        return made


def is_forked_child() -> bool:
    """Tell whether this process was forked, without exec, from one that had loaded this package."""
    return _forked


def are_held_off() -> bool:
    """Tell whether a fork would wait now, unless it comes from a thread in a critical section."""
    return bool(_busy)


@contextmanager
def held_off() -> Iterator[None]:
    """Hold off forks of other threads during an import, or a library call that takes locks.

    A child could never finish that import, nor take a lock that another thread of its parent held. A fork that already waits goes
    first.
    """
    _remember_thread()
    inside = _are_busy(own=True)
    busy = _Busy()
    while not inside and _must_give_way():  # either the fork sees this marker, or this thread sees the fork
        busy.end()
        time.sleep(_LOOK)
        busy = _Busy()
    try:
        yield
    finally:
        busy.end()


@contextmanager
def helping() -> Iterator[None]:
    """Context of a thread that works for another one, which holds off forks until this thread has ended."""
    _remember_thread()
    yield


def _remember_thread() -> None:
    """Note that the calling thread is in a critical section, and forget those that are gone if there are many."""
    _were_busy.add(threading.current_thread().native_id or 0)
    if len(_were_busy) > _MANY_THREADS:
        _were_busy.difference_update([thread for thread in list(_were_busy) if not (_TASKS / str(thread)).exists()])


def is_fork_waiting() -> bool:
    """Tell whether a fork waits for critical sections to end."""
    return _must_give_way()


def _are_busy(own: bool) -> bool:
    """Tell whether this thread (`own`), or any other, is in a critical section."""
    me = threading.get_ident()
    return any(busy is not None and (busy.thread == me) is own for busy in [known() for known in list(_busy.values())])


def _must_give_way() -> bool:
    now = time.monotonic()
    return any(now < until for until in list(_forks.values()))


def _before() -> None:
    now = time.monotonic()
    _forks[threading.get_ident()] = now + GIVE_WAY
    while _are_busy(own=False) and time.monotonic() < now + LONGEST_WAIT:
        time.sleep(_LOOK)
    _wait_for_ended_threads()


def _wait_for_ended_threads() -> None:
    """Wait until ended threads are gone: MKL frees their data last, while it holds a lock (seen on Linux)."""
    ended = _were_busy - {thread.native_id for thread in threading.enumerate()}
    end = time.monotonic() + _LONGEST_END
    while any((_TASKS / str(thread)).exists() for thread in ended) and time.monotonic() < end:
        time.sleep(_LOOK)
    _were_busy.difference_update(ended)


def _after_in_parent() -> None:
    _forks.pop(threading.get_ident(), None)


def _after_in_child() -> None:
    global _forked  # noqa: PLW0603
    _forked = True
    _forks.clear()
    for key, known in list(_busy.items()):
        busy = known()
        if busy is None or busy.thread != threading.get_ident():
            _busy.pop(key, None)
    for thing in list(_all):
        thing.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
