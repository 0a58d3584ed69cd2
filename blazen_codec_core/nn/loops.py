"""Whether there are compiled loops, and kernels for GPUs."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch


@functools.cache
def load_loops() -> Any:
    """`fused`, its loops compiled, where numba is installed to compile them; the first time it takes a second."""
    try:
        from . import fused
    except ImportError:
        return None
    return fused


@functools.cache
def _load_gpu_kernels() -> Any:
    try:
        from . import gpu
    except ImportError:
        return None
    return gpu


@functools.cache
def gpu_kernels_for(device: torch.device) -> Any:
    """`gpu`, where there is Triton to compile it, and the device is one that it is for."""
    if device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
        return None  # without asking, as importing Triton takes time
    kernels = _load_gpu_kernels()
    return kernels if kernels and kernels.runs_on(device) else None
