"""What a forked child of a process may not share with it. Of the threads of its parent only the one that forked is there."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_all: weakref.WeakSet[Anew[Any]] = weakref.WeakSet()
_forked = False


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


def is_forked_child() -> bool:
    """Whether this process is the fork of one that had loaded this package, and has not begun another program since."""
    return _forked


def _after_in_child() -> None:
    global _forked  # noqa: PLW0603
    _forked = True
    for thing in list(_all):
        thing.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_in_child)
