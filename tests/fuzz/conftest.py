from __future__ import annotations

import pytest

from tests.helpers.fuzzing import CASES, PEAKS, REFUSED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases there were of each kind, and how many of them were refused."""
    if CASES:
        terminalreporter.line(f"fuzzing: {sum(CASES.values())} cases, {sum(REFUSED.values())} of them refused")
    for kind, count in CASES.items():
        terminalreporter.line(f"  {kind:<28} {count:>5}, {REFUSED[kind]:>5} refused, peak {PEAKS.get(kind, 0):.0f} MiB")
