"""pytest reporter with one line per contract."""

from __future__ import annotations

from typing import Any

import pytest

WORDS = {"passed": ("holds", {"green": True}), "failed": ("FAILS", {"red": True, "bold": True}), "skipped": ("-", {})}


class ContractReporter(pytest.TerminalReporter):  # type: ignore[misc]  # declared final, but commonly subclassed
    """pytest's reporter with other output while tests run."""

    _codec: str | None = None

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """Print nothing; the report of a test has its name."""

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Print nothing."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            self.stats.setdefault("", []).append(report)
            return
        properties = dict(report.user_properties)
        category = "error" if report.when != "call" and report.failed else report.outcome
        self.stats.setdefault(category, []).append(report)
        codec, title = properties.get("codec"), str(properties.get("contract", report.nodeid))
        if codec != self._codec:
            self._codec = str(codec)
            self.write_line("")
            self.write_line(f"{codec} against the contracts", bold=True)
        word, markup = WORDS[report.outcome]
        kind, _, what = title.partition(": ")
        why = f" ({report.longrepr[2].removeprefix('Skipped: ')})" if isinstance(report.longrepr, tuple) else ""
        self.write(f"  {word:<6}", **markup)
        self.write_line(f"{kind:<15} {what}{why}")
