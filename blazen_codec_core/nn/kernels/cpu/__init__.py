"""CPU kernels compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and LSTMs are built on one GEMM micro-kernel.
"""

from __future__ import annotations

from .backend import CpuBackend

__all__ = ["CpuBackend"]
