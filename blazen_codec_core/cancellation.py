"""Cooperative cancellation: long work polls a flag between steps, because threads cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import InferenceError

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


@contextmanager
def cancel_scope(given_up: threading.Event) -> Iterator[None]:
    """Cancel the work in the block when the event is set."""
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


def check() -> None:
    """Stop if the current scope was cancelled; called between steps of long work.

    Raises:
        InferenceError: The work was cancelled. Its caller no longer waits, and does not see this error.
    """
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise InferenceError("the task that asked for this was cancelled")
