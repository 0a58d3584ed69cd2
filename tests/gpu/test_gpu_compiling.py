"""Kernels compile for GPUs, which the interpreter does not show; no GPU is needed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("name", "dtype", "capability", "kernels"),
    [
        ("snac_tiny", "float32", "90", ("_gemm", "_depthwise", "_assemble", "_box_muller")),
        ("encodec_tiny", "bfloat16", "80", ("_gemm", "_assemble", "_lstm")),
        ("dac_tiny", "tfloat32", "90", ("_gemm", "_assemble")),
        ("mimi", "float32", "90", ("_gemm", "_rotate", "_attend", "_write", "_normalize")),
    ],
)
def test_all_kernels_of_a_model_compile(name, dtype, capability, kernels, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    program = [sys.executable, str(Path(__file__).with_name("compiling.py")), name, dtype, capability]
    run = subprocess.run(
        program, capture_output=True, text=True, env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, check=False
    )
    assert run.returncode == 0, run.stderr
    assert all(kernel in run.stdout for kernel in kernels)
