"""Cases thrown at a public entry, and how many there were of each kind."""

from __future__ import annotations

import contextlib
import resource
import time
from collections import Counter
from pathlib import Path

from hypothesis import given

import blazen_codec_core as bc
from blazen_codec_core.conformance import strategies

CASES: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()
PEAKS: dict[str, float] = {}
SECONDS = 20.0
"""Of the processors' time: no case may take more. Neighbours take none of it."""


def peak() -> float:
    """Peak memory of the process, in MiB; on Linux since `forget_peak`."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    of_linux = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (of_linux[0] if of_linux else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def forget_peak() -> None:
    """Begin anew where the system can: tests that ran before in this process may have had a higher peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def throw(kind, examples, strategy, work, *, least=None) -> None:
    """Runs `work` on so many cases; it may raise a CodecError, which has to say something.

    Args:
        kind: A name of theirs, one for each call.
        least: Number of cases that there are, where that is less.
    """
    assert kind not in CASES

    @strategies.tries(examples)
    @given(strategy)
    def one(case):
        CASES[kind] += 1
        started = time.process_time()
        message = None
        try:
            work(case)
        except bc.CodecError as error:
            message = str(error)
            REFUSED[kind] += 1
        assert message is None or len(message) > 10
        assert time.process_time() - started < SECONDS

    one()
    PEAKS[kind] = peak()
    assert CASES[kind] >= (examples if least is None else least)
    assert REFUSED[kind] > 0
