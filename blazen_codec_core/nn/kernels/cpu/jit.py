"""Compilation of kernels with numba.

A kernel runs in its caller's thread and holds no lock of Python's, so several threads may run kernels at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import torch

from ....forks import held_off
from . import compile_cache

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")


def _cache_key() -> str:
    """Cache key: a hash of everything baked into compiled code that numba's cache index does not track.

    Numba tracks a function's own file alone. The key adds the files beside it, those whose constants are compiled in, the
    instruction set, and whether indices are checked.
    """
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "epilogue.py", here.parent / "winograd.py"]
    source = b"".join(path.read_bytes() for path in files)
    checks = "checked" if numba.config.BOUNDSCHECK else "unchecked"
    return f"{torch.backends.cpu.get_cpu_capability()}_{zlib.crc32(source):08x}_{checks}"


CACHE_KEY = _cache_key()
F = TypeVar("F", bound=Callable[..., Any])
_ARITHMETIC: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def variant(*parts: object) -> Callable[[F], F]:
    """Decorator below `njit` that gives each of the functions which a factory makes a name of its own.

    Machine code finds functions by name and by a number, which depends on what the process compiled before. A process may load
    kernels that several others compiled. Of two functions with one name and one number, all would call the one that came first.
    """

    def rename(function: F) -> F:
        function.__qualname__ = "_".join((function.__qualname__, *map(str, parts)))
        return function

    return rename


def inline_jit(function: Any) -> Any:
    """Compile a function for use inside kernels, with their arithmetic; it is compiled into those that call it."""
    return numba.njit(**_ARITHMETIC)(function)


class CompileError(Exception):
    """A kernel could not be compiled."""


class NativeFunction:
    """A function for one signature of numba's, compiled when a layer that needs it is prepared."""

    def __init__(self, function: Callable[..., None], signature: str) -> None:
        function.__qualname__ = f"{function.__name__}_{CACHE_KEY}"
        self._function, self._signature = function, signature
        self._compiled: Callable[..., None] | None = None

    def compiled(self) -> Callable[..., None]:
        """Machine code of the function, compiled once in a process, or loaded from what an earlier one compiled.

        Raises:
            CompileError: Numba or LLVM fails.
        """
        if self._compiled is None:
            try:
                with held_off():
                    self._compiled = self._compile()
            except Exception as error:  # compiling may raise anything
                raise CompileError(str(error)) from error
        return self._compiled

    def _compile(self) -> Callable[..., None]:
        dispatcher = numba.njit(nogil=True, **_ARITHMETIC)(self._function)
        try:
            dispatcher._cache = compile_cache.KernelCache(self._function)
        except RuntimeError as error:
            compile_cache.troubles.append(str(error))
        dispatcher.compile(self._signature)
        dispatcher.disable_compile()
        compiled: Callable[..., None] = dispatcher
        return compiled


def jit(signature: str) -> Callable[[Callable[..., None]], NativeFunction]:
    """Decorator that makes a kernel of a function; see `arguments.signature`."""
    return lambda function: NativeFunction(function, signature)
