"""Peak memory of a test run: sampled while it lasts, reported at its end, and failing it beyond a limit.

Codecs, kernels and the heaps of threads add up over a thousand tests. So free memory goes back to the system after each module,
and the run as a whole is held to what a small machine has.
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
"""Bytes, summed over the test process and its children."""
INTERVAL = 0.2
"""Seconds between two samples."""
MORE = 1.01
"""Growth of what all processes map after which it is looked at how much of it they share, which holds them up."""
GROWTH = 64_000_000
"""Bytes that the test process may grow by within a module before its free memory goes back."""


class MemoryWatch:
    """Pytest plugin that samples the resident memory of a run in a thread: of this process and of all that it starts.

    Args:
        limit: In bytes; a run with a higher peak fails.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.peak, self.peak_tests = limit, 0, ""
        self._most_mapped = 0.0
        self._running: dict[str, None] = {}
        self._process, self._over = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            running = " and ".join(self._running.copy()) or "collection"
            if (mapped := sum(self._resident(shared=True))) > self._most_mapped:
                self._most_mapped = mapped * MORE
                if (resident := sum(self._resident(shared=False))) > self.peak:
                    self.peak, self.peak_tests = resident, running

    def _resident(self, shared: bool) -> Iterator[int]:
        """Resident bytes of each process of the run.

        Args:
            shared: A page that several processes map counts for each, which is quick to read. Else it counts once in all (PSS),
                where the system tells.
        """
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended
                memory = process.memory_info() if shared else process.memory_full_info()
                yield getattr(memory, "pss", memory.rss)

    def pytest_sessionstart(self) -> None:
        self._thread.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        self._over.set()
        self._thread.join()
        if self.peak > self.limit and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.peak > self.limit:
            terminalreporter.section("too much memory", red=True)
        terminalreporter.line(f"peak memory: {self.peak / 1e9:.2f} GB (limit {self.limit / 1e9:.2f} GB), in {self.peak_tests}")


class MemoryRelease:
    """Pytest plugin that gives free memory back to the system after each file, and within a file that takes much."""

    def __init__(self) -> None:
        self._file, self._baseline, self._process = "", 0, psutil.Process()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        file = nodeid.partition("::")[0]
        if file != self._file or self._process.memory_info().rss > self._baseline + GROWTH:
            release_memory()
            self._file, self._baseline = file, self._process.memory_info().rss


def release_memory() -> None:
    """Collect garbage, and return free pages to the system where the C library can (glibc)."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
