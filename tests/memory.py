"""The memory of a test run: watched while it lasts, reported at its end, and failing it beyond a limit.

Codecs, their kernels and what threads leave behind in heaps of their own add up over a thousand tests. So whatever a test has
freed is given back to the system, and the run as a whole is held to a limit that a small machine has.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator

import psutil
import pytest

LIMIT = 3_000_000_000
"""Bytes, over this process and all that it starts."""
INTERVAL = 0.2
"""Seconds between two looks."""
GROWTH = 64_000_000
"""Bytes by which this process grows before it is worth going through its heaps."""


class MemoryWatch:
    """A pytest plugin that samples resident memory in a thread of its own.

    Args:
        limit: Bytes; a run that takes more fails.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.most, self.during = limit, 0, ""
        self._now, self._file, self._kept = "collection", "", 0
        self._process, self._over = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            now = self._now
            if (taken := sum(self._resident())) > self.most:
                self.most, self.during = taken, now

    def _resident(self) -> Iterator[int]:
        """Bytes of each process of the run. Pages that several map count for each of them."""
        yield self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended
                yield child.memory_info().rss

    def pytest_sessionstart(self) -> None:
        self._thread.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._now = nodeid

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        file = nodeid.partition("::")[0]
        if file != self._file or self._process.memory_info().rss > self._kept + GROWTH:
            give_back()
            self._file, self._kept = file, self._process.memory_info().rss

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        self._over.set()
        self._thread.join()
        if self.most > self.limit and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        said = f"memory: at most {self.most / 1e9:.2f} GB of {self.limit / 1e9:.2f}, during {self.during}"
        if self.most > self.limit:
            terminalreporter.section("too much memory", red=True)
        terminalreporter.line(said)


def give_back() -> None:
    """Frees what nothing refers to any more, and returns free pages to the system where the C library can."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)  # glibc's
