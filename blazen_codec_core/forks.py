"""Forked children: things that they may not share with their parent, of whose threads only the one that forked is there."""

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
"""Seconds that a fork waits for what other threads do. Longer than that, they may be waiting for the fork."""
GIVE_WAY = 10.0
"""Seconds that what would hold forks off waits for one that is waiting."""
_LOOK = 0.001
"""Seconds after which either looks again. No lock is held meanwhile: an interrupt at the wrong moment would leave it locked."""
_LONGEST_END = 1.0
"""Seconds that a fork waits for threads that have ended, and whose libraries tidy up."""
_TASKS = Path("/proc/self/task")
_forked = False
_forks: dict[int, float] = {}
"""Threads that are about to fork, and until when others give way to them."""
_busy: dict[int, weakref.ref[_Busy]] = {}
_were_busy: set[int] = set()
"""Threads, as the system numbers them."""


class _Busy:
    """A thread is where no other may fork. It lives as long as the frame that holds it, however that is left."""

    def __init__(self) -> None:
        self.thread, key = threading.get_ident(), id(self)
        _busy[key] = weakref.ref(self, lambda _: _busy.pop(key, None))

    def end(self) -> None:
        """Let others fork."""
        _busy.pop(id(self), None)


class Anew(Generic[T]):
    """A thing of one process, such as a lock or a pool of threads; in a forked child another one takes its place.

    There a lock may be held by a thread that does not exist, and a pool wait for some that do not.

    Args:
        make: Called when the thing is first asked for, in each process.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}
        _all.add(self)

    @property
    def own(self) -> T:
        """Instance of this process, the same for all of its threads."""
        made = self._made.get("own")
        return self._made.setdefault("own", self._make()) if made is None else made

    def forget(self) -> None:
        """Let the next who asks have a new one."""
        self._made.clear()


class cached_property(Generic[T]):  # noqa: N801 as Python's own
    """Property as `functools.cached_property` of Python 3.12: kept in the object, and computed without a lock.

    A fork would find such a lock locked for ever.
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
    """Tell whether this process is the fork of one that had loaded this package, and has not begun another program since."""
    return _forked


def are_held_off() -> bool:
    """Tell whether a fork of another thread than the busy ones would wait now."""
    return bool(_busy)


@contextmanager
def held_off() -> Iterator[None]:
    """Forks of other threads wait: a module is imported, or a library runs that locks what is its own.

    A child can never import what was being imported, nor take a lock that a thread of its parent had. A fork that waits already
    goes first.
    """
    _were_busy.add(threading.current_thread().native_id or 0)
    inside = _are_busy(own=True)
    busy = _Busy()
    while not inside and _must_give_way():  # either a fork sees that we are busy, or we see that it is about to be
        busy.end()
        time.sleep(_LOOK)
        busy = _Busy()
    try:
        yield
    finally:
        busy.end()


def _are_busy(own: bool) -> bool:
    """Tell whether this thread is, or any other."""
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
    """Until those are gone that Python has ended: MKL gives back what it kept for them last, behind a lock (seen on Linux)."""
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


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
