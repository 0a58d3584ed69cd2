"""A request to stop by SIGINT or SIGTERM, which a run follows after its step and a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequest:
    """Request to stop a run.

    Args:
        event: Event that is set on a signal; one of `multiprocessing` if several processes stop together.

    Attributes:
        signal: Number of the signal; `None` if there was none.
    """

    def __init__(self, event: Any = None) -> None:
        self._event = event if event is not None else threading.Event()
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return bool(self._event.is_set())

    def set(self) -> None:
        self._event.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Set the request on a signal, within the block; a second signal raises `KeyboardInterrupt`.

        Outside the main thread, which alone can install handlers, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._event.set()
