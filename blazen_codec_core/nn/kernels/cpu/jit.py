"""Compilation of loops with numba, and the number of threads that they run in.

They run in the OpenMP threads of PyTorch's own operations, so that neither waits while the other's are still spinning; where
numba would bring threads of its own, one thread runs them.
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

from ..memory_format import whole
from . import compile_cache

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

MANY_VALUES = 1 << 14
"""Below this many, waking other threads costs more than they save."""


def _kind() -> str:
    """Label of all that compiled loops depend on beyond their own file.

    Numba's cache looks at that file alone. The label stands for the files beside it, those whose numbers are compiled in, and the
    vector instructions.
    """
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "epilogue.py", here.parent / "winograd.py"]
    source = b"".join(path.read_bytes() for path in files)
    return f"{torch.backends.cpu.get_cpu_capability()}_{zlib.crc32(source):08x}"


_KIND = _kind()


_ARITHMETIC: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def part(function: Any) -> Any:
    """Compile a part of a loop, with the loop's arithmetic; it becomes code of the loops that call it."""
    return numba.njit(**_ARITHMETIC)(function)


def compiled(signature: str, *, parallel: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Compiles for one signature at once, or takes what an earlier process compiled."""

    def made(function: FunctionT) -> FunctionT:
        function.__qualname__ = f"{function.__name__}_{_KIND}_{'parts' if parallel else 'one'}"
        loop = numba.njit(nogil=True, parallel=parallel, **_ARITHMETIC)(function)
        try:
            loop._cache = compile_cache.KeptLoops(function)
        except RuntimeError as error:
            compile_cache.troubles.append(str(error))
        loop.compile(signature)
        loop.disable_compile()
        return cast(FunctionT, loop)

    return made


def jit_parallel(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compiles a loop over parts, the last argument, twice: for one thread, and for as many as there are parts."""

    def made(function: Callable[..., None]) -> Callable[..., None]:
        alone, together = compiled(signature)(function), compiled(signature, parallel=True)(function)

        @functools.wraps(function)
        def run(*arguments: Any) -> None:
            (together if arguments[-1] > 1 else alone)(*arguments)

        return run

    return made


@compiled("void(f4[::1], i8)", parallel=True)
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
    if getattr(_told, "threads", None) != threads:  # each thread tells numba for itself
        numba.set_num_threads(threads)
        _told.threads = threads
    return int(threads)


_told = threading.local()


def array(x: Tensor) -> Any:
    return x.detach().numpy()


def require_float32_rows(x: Tensor) -> Tensor:
    """A signal whose address a loop may be given: its frames one after the other. What lies at an address has no type, so that is
    looked at here.
    """
    if x.dtype != torch.float32:
        raise TypeError(f"loops are compiled for signals of float32, not {x.dtype}")
    return whole(x)
