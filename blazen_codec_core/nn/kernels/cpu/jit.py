"""Compilation of kernels with numba, and the number of threads that they run in.

Kernels run in the OpenMP threads of PyTorch's own operations. With threads of their own, each library would wait while the
other's spin. Where numba would start its own, kernels run in one thread.
"""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from ..memory_format import frame_contiguous
from ..thread_counts import preserved_thread_count
from . import compile_cache

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

MANY_VALUES = 1 << 14
"""Below this many values, waking other threads costs more than they save."""


def _cache_key() -> str:
    """Cache key: a hash of everything baked into compiled code that numba's cache index does not track.

    Numba tracks a function's own file alone. The key adds the files beside it, those whose constants are compiled in, and the
    instruction set.
    """
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "epilogue.py", here.parent / "winograd.py"]
    source = b"".join(path.read_bytes() for path in files)
    return f"{torch.backends.cpu.get_cpu_capability()}_{zlib.crc32(source):08x}"


CACHE_KEY = _cache_key()


_ARITHMETIC: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def inline_jit(function: Any) -> Any:
    """Compile a function for use inside kernels, with their arithmetic; it is compiled into those that call it."""
    return numba.njit(**_ARITHMETIC)(function)


def jit(signature: str, *, parallel: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Decorator that compiles a kernel for one signature at import, or loads what an earlier process compiled."""

    def decorate(function: FunctionT) -> FunctionT:
        function.__qualname__ = f"{function.__name__}_{CACHE_KEY}_{'parts' if parallel else 'one'}"
        loop = numba.njit(nogil=True, parallel=parallel, **_ARITHMETIC)(function)
        try:
            loop._cache = compile_cache.KernelCache(function)
        except RuntimeError as error:
            compile_cache.troubles.append(str(error))
        with preserved_thread_count():  # starting numba's threads sets that of the calling thread
            loop.compile(signature)
        loop.disable_compile()
        return cast(FunctionT, loop)

    return decorate


def jit_parallel(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that compiles a kernel twice: for one thread, and for as many as its last argument, `parts`, says."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        serial, parallel_loop = jit(signature)(function), jit(signature, parallel=True)(function)

        @functools.wraps(function)
        def run(*arguments: Any) -> None:
            (parallel_loop if arguments[-1] > 1 else serial)(*arguments)

        return run

    return decorate


@jit("void(f4[::1], i8)", parallel=True)
def _touch(values: Any, parts: int) -> None:
    for part in prange(parts):
        values[part] = np.float32(1)


@functools.cache
def _threads_are_shared() -> bool:
    """Tell whether numba's threads are OpenMP's, which is known once they have run."""
    _touch(np.zeros(1, np.float32), 1)
    return bool(numba.threading_layer() == "omp")


def num_threads_for(values: int) -> int:
    """Choose the number of threads that work on `values` values, and set it in numba."""
    if values < MANY_VALUES:
        return 1
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if threads == 1 or not _threads_are_shared():
        return 1
    if getattr(_local, "threads", None) != threads:  # the setting is that of a thread
        numba.set_num_threads(threads)
        _local.threads = threads
    return int(threads)


_local = threading.local()


def array(x: Tensor) -> Any:
    return x.detach().numpy()


def require_float32_rows(x: Tensor) -> Tensor:
    """Contiguous form of a signal, whose address a kernel may be given.

    Raises:
        TypeError: The dtype is not float32. An address has no type, so kernels cannot tell.
    """
    if x.dtype != torch.float32:
        raise TypeError(f"signal is {x.dtype}; compiled kernels expect float32")
    return frame_contiguous(x)
