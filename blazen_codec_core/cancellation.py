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
    """Around work that is wanted until the event is set."""
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


def check() -> None:
    """Asked between two steps of long work.

    Raises:
        InferenceError: Who asked for the work no longer waits for it, and so does not hear of this either.
    """
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise InferenceError("the task that asked for this was cancelled")
