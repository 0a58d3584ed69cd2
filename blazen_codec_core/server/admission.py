"""Admission: a limited number of clients are served; others wait in a queue or are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

OnPosition = Callable[[int], Awaitable[object]]
"""Callback with the position in the queue, from 1, each time it changes."""


class QueueFull(Exception):
    """The queue is full."""


class Line:
    """FIFO queue with `at_once` clients served and at most `waiting` clients waiting. For one event loop."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._most = at_once, waiting
        self._served = 0
        self._waiting: list[asyncio.Event] = []

    @asynccontextmanager
    async def turn(self, told: OnPosition) -> AsyncIterator[None]:
        """Wait for a turn, and end it on exit.

        Raises:
            QueueFull: Too many clients wait already.
        """
        if self._served >= self._at_once and len(self._waiting) >= self._most:
            raise QueueFull(f"the queue is full: {self._served} clients are served and {self._most} wait. Try again later")
        moved = asyncio.Event()
        self._waiting.append(moved)
        try:
            while self._waiting[0] is not moved or self._served >= self._at_once:
                moved.clear()
                await told(self._waiting.index(moved) + 1)
                await moved.wait()
            self._served += 1
        finally:
            self._waiting.remove(moved)
            self._move()
        try:
            yield
        finally:
            self._served -= 1
            self._move()

    def _move(self) -> None:
        for moved in self._waiting:
            moved.set()
