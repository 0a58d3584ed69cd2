"""Atomics and a spin-wait for the threads of one loop.

Waiting so costs a tenth of what starting a parallel loop for every step does.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_COUNT = ir.IntType(32)
_MAX_SPINS = 4000
"""Spins before yielding, some tens of microseconds: threads that have a core each are less far apart."""


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _COUNT.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def test_and_set(typing: Any, address: Any) -> Any:
    """Atomic test-and-set of the int32 at an address; returns whether it was set before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        previous = builder.atomic_rmw("xchg", _pointer(builder, arguments[0]), _COUNT(1), "acq_rel")
        return builder.icmp_signed("!=", previous, _COUNT(0))

    return types.boolean(types.int64), emit


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typing: Any, address: Any) -> Any:
    """Atomically add one to the int32 at an address, with acquire and release ordering."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.atomic_rmw("add", _pointer(builder, arguments[0]), _COUNT(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(typing: Any, address: Any) -> Any:
    """Atomic load of the int32 at an address, with acquire ordering."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0]), "acquire", 4)

    return types.int32(types.int64), emit


def _external_call(symbol: str | None) -> Any:
    """Numba intrinsic that calls the function `symbol` without arguments; it does nothing if `symbol` is `None`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def call(typing: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if symbol:
                builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), symbol), [])
            return context.get_dummy_value()

        return types.void(), emit

    return call


_pause = _external_call("llvm.x86.sse2.pause" if platform.machine().lower() in {"x86_64", "amd64"} else None)
_yield = _external_call(None if sys.platform == "win32" else "sched_yield")


@njit
def spin_until(address, count):  # type: ignore[no-untyped-def]
    """Spin until the int32 at an address is at least `count`; after `_MAX_SPINS` looks, yield the core between them."""
    spins = 0
    while load_acquire(address) < count:
        spins += 1
        if spins < _MAX_SPINS:
            _pause()
        else:
            _yield()
