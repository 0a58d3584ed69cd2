"""SIGINT and SIGTERM end a command, whatever disposition it inherited and whatever it is doing.

A handler raises in the main thread, so that the command unwinds. That alone is not enough: Python calls handlers between two
bytecodes of the main thread, which may be in compiled code. So the interpreter also reports each signal to a watchdog thread
(`signal.set_wakeup_fd`). That thread ends the process if the main thread has not done so within a grace period.

An exception is lost where nothing can propagate it: in `__del__`, or in a callback from C. There `sys.unraisablehook` is
called, and the watchdog raises it again.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from .. import files

INTERRUPTED, TERMINATED = 130, 143
EXIT_CODES: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
GRACE_SECONDS = 5.0
"""Time that the command has to unwind."""
APART_SECONDS = 0.5
"""Signals closer than this count as one: `timeout`, say, sends each to the process and to its group."""
SWALLOWED = b"\xff"
"""Tells the watchdog that the exception was lost. No signal has this number."""
SWALLOWED_SECONDS = 0.01
"""Delay before it is raised again, so that the code that swallowed it can return."""


class Interrupted(KeyboardInterrupt):
    """Raised on SIGINT.

    A plain `KeyboardInterrupt` that passes through Python code called from C makes the interpreter end by the signal, whatever
    `sys.exit` says. A subclass does not.
    """


class Interrupts:
    """Context manager under which SIGINT raises `Interrupted`, and SIGTERM `SystemExit(143)`.

    Then the grace period begins; a second signal ends it. This also holds if SIGINT was inherited as ignored, as in background
    jobs of a shell. If other code, such as a server, replaces a handler, that signal is left to it. Outside the main thread,
    which alone can install handlers, nothing changes.

    Args:
        until_exit: Stay in force until the process has ended, also while it waits for threads at exit.
    """

    def __init__(self, *, until_exit: bool) -> None:
        self._until_exit, self._is_raised = until_exit, False
        self._told: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._watchdog = threading.Thread(target=self._watch, name="blazen-codec interrupts", daemon=True)
        self._watchdog.start()
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._handle_unraisable
        for number in EXIT_CODES:
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._until_exit:
            files.discard_unfinished()  # a signal while unwinding may have left some
            return
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
        signal.set_wakeup_fd(self._wakeup_before)
        sys.unraisablehook = self._hook_before
        self._sender.close()
        self._watchdog.join()
        self._receiver.close()

    def end_if_told(self) -> None:
        """End the process at once after a signal, once the command has unwound.

        The interpreter's own exit may abort: a thread that returns from C++ during it raises an exception that nothing catches.
        The exit code is always the signal's, since some C code replaces the exception by another.
        """
        if not self._until_exit or self._told is None:
            return
        files.discard_unfinished()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(EXIT_CODES[self._told])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_raised:  # the watchdog handles it
            return
        self._is_raised, self._told = True, number
        if number == signal.SIGINT:
            raise Interrupted
        sys.exit(EXIT_CODES[number])

    def _handle_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if self._is_raised and issubclass(unraisable.exc_type, (Interrupted, SystemExit)):
            self._sender.send(SWALLOWED)
        else:
            self._hook_before(unraisable)

    def _watch(self) -> None:
        first: int | None = None
        ends = 0.0
        while True:
            now = time.monotonic()
            self._receiver.settimeout(None if first is None else max(ends - now, 1e-3))
            try:
                received = self._receiver.recv(64)
            except TimeoutError:
                assert first is not None
                files.discard_unfinished()
                os._exit(EXIT_CODES[first])
            if not received:  # the context was left
                return
            now = time.monotonic()
            for number in received:
                if number not in EXIT_CODES or signal.getsignal(number) != self._handle:
                    continue
                if first is None:
                    first, ends = number, now + GRACE_SECONDS
                elif now > ends - GRACE_SECONDS + APART_SECONDS:
                    ends = now
            if SWALLOWED in received and first is not None:
                time.sleep(SWALLOWED_SECONDS)
                self._is_raised = False
                _thread.interrupt_main(signal.Signals(first))
