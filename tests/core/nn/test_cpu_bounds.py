"""CPU kernels read and write nothing outside their tensors: these end and begin at pages that cannot be accessed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.helpers.processors import blocks

pytestmark = [blocks, pytest.mark.skipif(sys.platform == "win32", reason="no mprotect here")]
KERNELS = (
    "direct", "depthwise", "kn2row", "winograd", "transposed", "group_norm", "channel_norm", "attention", "codebook_search",
    "lstm", "assemble_input", "write_activation",
)  # fmt: skip
"""Functions of `tests.helpers.kernel_bounds`."""


def run(*kernels: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.helpers.kernel_bounds", *kernels]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


def test_kernels_stay_within_their_tensors():
    done = run(*KERNELS)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{lines[-1:]} {done.stderr}"
    assert tuple(dict.fromkeys(line.split()[0] for line in lines)) == KERNELS


def test_an_overrun_ends_the_process():
    done = run("overrun")
    assert done.returncode == -signal.SIGSEGV
    assert done.stdout.splitlines() == ["overrun 0: inputs ((1, 11, 16),)"]
