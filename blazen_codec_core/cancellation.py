"""Cooperative cancellation: long work polls a flag between steps, because threads cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from .errors import InferenceError

if TYPE_CHECKING:
    from concurrent.futures import Executor

T = TypeVar("T")

_given_up: ContextVar[tuple[threading.Event, ...]] = ContextVar("given_up", default=())


@contextmanager
def cancel_scope(given_up: threading.Event) -> Iterator[None]:
    """Cancel the work in the block when the event is set, or one of the scopes around it is cancelled."""
    token = _given_up.set((*_given_up.get(), given_up))
    try:
        yield
    finally:
        _given_up.reset(token)


def check() -> None:
    """Stop if the current scope was cancelled; called between steps of long work.

    Raises:
        InferenceError: The work was cancelled. Its caller no longer waits, and does not see this error.
    """
    if any(given_up.is_set() for given_up in _given_up.get()):
        raise InferenceError("the task that asked for this was cancelled")


async def run_in_thread(function: Callable[[], T], executor: Executor | None = None) -> T:
    """Run a function in a thread, and cancel its work if the task is cancelled.

    Work that waits for a thread then never begins; work in progress ends at the next `check`.

    Args:
        executor: Its threads; those of the running loop if `None`.
    """
    import asyncio  # here, because listing codecs does not need it

    cancelled = threading.Event()

    def work() -> T:
        with cancel_scope(cancelled):
            check()
            return function()

    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    except asyncio.CancelledError:
        cancelled.set()
        raise
