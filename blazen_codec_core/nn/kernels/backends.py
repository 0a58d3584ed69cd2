"""Kernel back ends that can be imported here: numba's for CPUs, and Triton's for GPUs."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import cast

import torch

from ...errors import SlowerNotice
from ...forks import held_off
from .interface import KernelBackend

BROKEN = "{package} does not work here, so plain PyTorch runs, several times slower: {reason}. Repair or uninstall {package}"


@functools.cache
def load_cpu_backend() -> KernelBackend | None:
    """The back end `cpu`; `None` without numba. Its kernels are compiled, for some seconds each, when layers are prepared."""
    return _optional("cpu", "CpuBackend", "numba")


@functools.cache
def _load_triton() -> KernelBackend | None:
    return _optional("triton", "TritonBackend", "triton")


def _optional(module: str, backend: str, needed: str) -> KernelBackend | None:
    """Make the back end of a module beside this one; `None` if the package it needs is missing, or broken, which is warned of."""
    try:
        with held_off():
            return cast(KernelBackend, getattr(importlib.import_module(f".{module}", __package__), backend)())
    except ModuleNotFoundError as error:
        if error.name in {needed, "llvmlite"}:  # which numba brings
            return None
        reason: Exception = error
    except Exception as error:  # compiling may raise anything
        reason = error
    warnings.warn(BROKEN.format(package=needed, reason=reason), SlowerNotice, stacklevel=3)
    return None


@functools.cache
def load_gpu_backend(device: torch.device) -> KernelBackend | None:
    """The back end `triton` if Triton is installed and supports the device, else `None`."""
    if device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
        return None  # importing Triton takes time
    backend = _load_triton()
    return backend if backend and backend.supports(device) else None
