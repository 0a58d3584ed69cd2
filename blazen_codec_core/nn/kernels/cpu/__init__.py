"""CPU kernels compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and LSTMs are built on one GEMM micro-kernel.
"""

from __future__ import annotations

from . import compile_cache
from .backend import CpuBackend

__all__ = ["CpuBackend", "compile_cache"]
