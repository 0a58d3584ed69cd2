"""Signals that end a command, whatever it inherited and whatever it is doing.

A handler raises in the main thread, so that the command unwinds. That alone is not enough: Python calls handlers between two
instructions of the main thread, which may be in compiled code for long, and what a handler raises is lost where nothing can
propagate it (in `__del__`, in a callback from C, in threads that are joined at exit). So the interpreter also tells a thread of
each signal (`signal.set_wakeup_fd`), and that thread ends the process if the main thread has not done so in time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from .. import files

INTERRUPTED, TERMINATED = 130, 143
EXIT_CODES: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
GRACE_SECONDS = 5.0
"""For the command to unwind."""
APART_SECONDS = 0.5
"""Two signals that are closer are one: some that pass them on send them to a process and to its group."""


class Interrupted(KeyboardInterrupt):
    """SIGINT came.

    Where a `KeyboardInterrupt` itself has passed through Python code that was run from C, the interpreter ends by the signal,
    whatever `sys.exit` says. For a subclass it does not.
    """


class Interrupts:
    """While it is entered, SIGINT raises `Interrupted` and SIGTERM `SystemExit(143)`; the grace period then begins.

    It also holds where SIGINT was inherited as ignored, as a shell leaves it to what it runs in its background. A second signal
    ends the grace period. Handlers that others install meanwhile are theirs: signals that these handle are not watched.

    Args:
        to_the_end: It stays in force until the process is over, which includes waiting for threads at exit.
    """

    def __init__(self, *, to_the_end: bool) -> None:
        self._to_the_end, self._is_raised = to_the_end, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # which alone may install handlers, and gets signals
            return
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._watcher = threading.Thread(target=self._watch, name="blazen-codec interrupts", daemon=True)
        self._watcher.start()
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in EXIT_CODES:
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._to_the_end:
            files.discard_unfinished()  # which a signal between two steps of unwinding may have left
            return
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not Python that installed it
        signal.set_wakeup_fd(self._wakeup_before)
        self._sender.close()
        self._watcher.join()
        self._receiver.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_raised:  # the watcher sees to it
            return
        self._is_raised = True
        if number == signal.SIGINT:
            raise Interrupted
        sys.exit(EXIT_CODES[number])

    def _watch(self) -> None:
        first: int | None = None
        ends = 0.0
        while True:
            now = time.monotonic()
            self._receiver.settimeout(None if first is None else max(ends - now, 1e-3))
            try:
                told = self._receiver.recv(64)
            except TimeoutError:
                assert first is not None
                files.discard_unfinished()
                os._exit(EXIT_CODES[first])
            if not told:  # it was left
                return
            now = time.monotonic()
            for number in told:
                if number not in EXIT_CODES or signal.getsignal(number) != self._handle:
                    continue
                if first is None:
                    first, ends = number, now + GRACE_SECONDS
                elif now > ends - GRACE_SECONDS + APART_SECONDS:
                    ends = now
