"""Kernel back ends that can be imported here: numba's for CPUs, and Triton's for GPUs."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any

import torch

from ...errors import SlowerNotice
from ...forks import held_off
from .thread_counts import threads_kept


@functools.cache
def load_loops() -> Any:
    """`cpu`, its loops compiled, where numba is installed to compile them; the first time it takes a second."""
    with threads_kept():  # loading a parallel loop takes all that there are
        fused = _optional("cpu", "numba")
    if fused and (troubles := fused.compile_cache.troubles):
        warnings.warn(
            f"compiled loops cannot be kept, so every process compiles them again, for a minute: {troubles[0]}. Make room there, "
            "delete what is damaged, or set NUMBA_CACHE_DIR to a folder that can be written",
            SlowerNotice,
            stacklevel=2,
        )
    return fused


@functools.cache
def _load_gpu_kernels() -> Any:
    return _optional("triton", "triton")


def _optional(module: str, needed: str) -> Any:
    """A module beside this one, where what it needs is installed. That it does not work costs speed and nothing else."""
    try:
        with held_off():
            return importlib.import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        if error.name in {needed, "llvmlite"}:  # which numba brings
            return None
        reason: Exception = error
    except Exception as error:  # whatever compiling raises
        reason = error
    warnings.warn(
        f"plain PyTorch runs, several times slower than with {needed}, which does not work here: {reason}. "
        f"Set right what that says, or uninstall {needed}",
        SlowerNotice,
        stacklevel=3,
    )
    return None


@functools.cache
def gpu_kernels_for(device: torch.device) -> Any:
    """`triton`, where there is Triton to compile it, and the device is one that it is for."""
    if device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
        return None  # without asking, as importing Triton takes time
    kernels = _load_gpu_kernels()
    return kernels if kernels and kernels.runs_on(device) else None
