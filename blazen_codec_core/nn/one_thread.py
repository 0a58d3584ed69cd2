"""Arithmetic on one thread, for results that may not depend on how many there are.

A library that shares a product among threads adds its terms in another order. Both OpenMP and MKL keep a number of threads for
each calling thread beside that of the process, and only the caller's own is changed here.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

SetThreads = Callable[[int], Any]
LIBRARIES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib", "win32": "libiomp5md.dll"}
"""PyTorch's library that OpenMP is found through, by `sys.platform`."""


@contextmanager
def one_thread() -> Iterator[None]:
    """The calling thread computes alone inside; other threads, and `torch.get_num_threads` in them, stay as they are.

    Where PyTorch is built without OpenMP, nothing changes.
    """
    before = torch.get_num_threads()  # which sets up this thread's own count, if nothing did before
    set_openmp, set_mkl = _setters()
    if set_openmp is None:
        yield
        return
    set_openmp(1)
    own = set_mkl(1) if set_mkl else 0
    try:
        yield
    finally:
        set_openmp(before)
        if set_mkl:
            set_mkl(own)


@contextmanager
def threads_kept() -> Iterator[None]:
    """The calling thread computes with as many threads after as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if set_openmp := _setters()[0]:
            set_openmp(before)


@functools.cache
def _setters() -> tuple[SetThreads | None, SetThreads | None]:
    """`omp_set_num_threads` and `mkl_set_num_threads_local` as PyTorch itself uses them; `None` for what it has not."""
    path = Path(torch.__file__).parent / "lib" / LIBRARIES.get(sys.platform, "")
    if not path.is_file():
        return None, None
    library = ctypes.CDLL(str(path))  # loaded before; this finds the OpenMP that it is linked against
    openmp, mkl = (getattr(library, name, None) for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local"))
    if openmp is not None:
        openmp.argtypes, openmp.restype = (ctypes.c_int,), None
    if mkl is not None:
        mkl.argtypes, mkl.restype = (ctypes.c_int,), ctypes.c_int
    return openmp, mkl
