"""Thread counts of the calling thread.

A library that splits a GEMM among threads adds terms in another order, and one that gets fewer threads than expected leaves parts
undone. OpenMP and MKL keep a thread count for each calling thread beside that of the process; only the caller's is changed here.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LIBRARIES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib", "win32": "libiomp5md.dll"}
"""PyTorch's library through which OpenMP is found, by `sys.platform`."""


@dataclass(frozen=True)
class OpenMP:
    """Thread functions of PyTorch's OpenMP and of MKL; MKL's is `None` in builds without it."""

    set_threads: Callable[[int], Any]
    is_dynamic: Callable[[], int]
    limit: Callable[[], int]
    set_threads_of_mkl: Callable[[int], int] | None


def one_thread() -> AbstractContextManager[None]:
    """Context in which the calling thread computes alone; see `threads`."""
    return threads(1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Context in which the calling thread computes with `count` threads; counts of other threads do not change.

    It does nothing in builds of PyTorch without OpenMP.
    """
    before, openmp = torch.get_num_threads(), _openmp()  # the first call sets up the count of this thread
    if openmp is None:
        yield
        return
    openmp.set_threads(count)
    of_mkl = openmp.set_threads_of_mkl(count) if openmp.set_threads_of_mkl else 0
    try:
        yield
    finally:
        openmp.set_threads(before)
        if openmp.set_threads_of_mkl:
            openmp.set_threads_of_mkl(of_mkl)


def available_threads() -> int:
    """Number of threads that the caller is sure to get; OpenMP may give fewer than requested (`OMP_THREAD_LIMIT`, `OMP_DYNAMIC`).

    oneDNN splits its work before it knows, and the shares of missing threads stay undone.
    """
    count, openmp = torch.get_num_threads(), _openmp()
    if count == 1 or openmp is None:
        return count
    return 1 if openmp.is_dynamic() else max(1, min(count, openmp.limit()))


@functools.cache
def _openmp() -> OpenMP | None:
    path = Path(torch.__file__).parent / "lib" / LIBRARIES.get(sys.platform, "")
    if not path.is_file():
        return None
    library = ctypes.CDLL(str(path))  # loaded before; this finds the OpenMP that it is linked against
    found = [getattr(library, name, None) for name in ("omp_set_num_threads", "omp_get_dynamic", "omp_get_thread_limit")]
    if None in found:
        return None
    set_threads, is_dynamic, limit = found
    set_threads.argtypes, set_threads.restype = (ctypes.c_int,), None  # type: ignore[union-attr]
    of_mkl = getattr(library, "MKL_Set_Num_Threads_Local", None)
    if of_mkl is not None:
        of_mkl.argtypes, of_mkl.restype = (ctypes.c_int,), ctypes.c_int
    return OpenMP(set_threads, is_dynamic, limit, of_mkl)  # type: ignore[arg-type]
