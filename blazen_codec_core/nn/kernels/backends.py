"""Kernel back ends that can be imported here: numba's for CPUs, and Triton's for GPUs."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any, cast

import torch

from ...errors import SlowerNotice
from ...forks import held_off
from .interface import KernelBackend


@functools.cache
def load_cpu_backend() -> KernelBackend | None:
    """The back end `cpu` with its kernels compiled; `None` without numba. Loading takes a second the first time."""
    cpu = _optional("cpu", "numba")
    if cpu is None:
        return None
    if troubles := cpu.compile_cache.troubles:
        warnings.warn(
            f"compiled kernels cannot be cached, so every process compiles them for a minute: {troubles[0]}. Free disk space, "
            "delete damaged files, or set NUMBA_CACHE_DIR to a writable folder",
            SlowerNotice,
            stacklevel=2,
        )
    return cast(KernelBackend, cpu.CpuBackend())


@functools.cache
def _load_triton() -> KernelBackend | None:
    triton = _optional("triton", "triton")
    return None if triton is None else cast(KernelBackend, triton.TritonBackend())


def _optional(module: str, needed: str) -> Any:
    """Import a module beside this one; `None` if the package it needs is missing, or broken, which is warned of."""
    try:
        with held_off():
            return importlib.import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        if error.name in {needed, "llvmlite"}:  # which numba brings
            return None
        reason: Exception = error
    except Exception as error:  # compiling may raise anything
        reason = error
    warnings.warn(
        f"{needed} does not work here, so plain PyTorch runs, several times slower: {reason}. Repair or uninstall {needed}",
        SlowerNotice,
        stacklevel=3,
    )
    return None


@functools.cache
def load_gpu_backend(device: torch.device) -> KernelBackend | None:
    """The back end `triton` if Triton is installed and supports the device, else `None`."""
    if device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
        return None  # importing Triton takes time
    backend = _load_triton()
    return backend if backend and backend.supports(device) else None
