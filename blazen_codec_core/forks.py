"""What a forked child of a process may not share with it. Of the threads of its parent only the one that forked is there."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")
_all: weakref.WeakSet[Anew[Any]] = weakref.WeakSet()
LONGEST_IMPORT = 180.0
"""Seconds that a fork waits for one, which may compile kernels. Longer than that, the import may be waiting for the fork."""
_forked = False
_importing = threading.Condition()
_imports = 0
_own = threading.local()


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
        """That of this process, the same for all of its threads."""
        made = self._made.get("own")
        return self._made.setdefault("own", self._make()) if made is None else made

    def forget(self) -> None:
        """Let the next who asks have a new one."""
        self._made.clear()


class cached_property(Generic[T]):  # noqa: N801 as Python's own
    """That of Python 3.12 and later: kept in the object, and computed without a lock, which a fork would find locked for ever."""

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
    """Whether this process is the fork of one that had loaded this package, and has not begun another program since."""
    return _forked


@contextmanager
def held_off() -> Iterator[None]:
    """While something is imported: forks of other threads wait, since a child can never import what was being imported."""
    global _imports  # noqa: PLW0603
    with _importing:
        _imports += 1
    _own.imports = getattr(_own, "imports", 0) + 1
    try:
        yield
    finally:
        _own.imports -= 1
        with _importing:
            _imports -= 1
            _importing.notify_all()


def _before() -> None:
    _importing.acquire()
    _importing.wait_for(lambda: _imports <= getattr(_own, "imports", 0), LONGEST_IMPORT)


def _after_in_parent() -> None:
    _importing.release()


def _after_in_child() -> None:
    global _forked, _importing, _imports
    _forked, _importing, _imports = True, threading.Condition(), getattr(_own, "imports", 0)
    for thing in list(_all):
        thing.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
