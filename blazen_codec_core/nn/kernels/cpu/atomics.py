"""Atomics and a spin-wait for threads inside one loop, a tenth of the cost of starting a loop for every step."""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_COUNT = ir.IntType(32)
_PATIENCE = 4000
"""Looks, some tens of microseconds: more than threads of one loop are apart if each has a core."""


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _COUNT.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def taken(typing: Any, address: Any) -> Any:
    """Takes what the int32 at an address stands for, and tells whether it was taken before."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before = builder.atomic_rmw("xchg", _at(builder, arguments[0]), _COUNT(1), "acq_rel")
        return builder.icmp_signed("!=", before, _COUNT(0))

    return types.boolean(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typing: Any, address: Any) -> Any:
    """To the int32 at an address, once all that was written before is there for whoever sees it."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.atomic_rmw("add", _at(builder, arguments[0]), _COUNT(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def seen(typing: Any, address: Any) -> Any:
    """The int32 at an address, and with it all that was written before it became so."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_at(builder, arguments[0]), "acquire", 4)

    return types.int32(types.int64), write


def _calling(symbol: str | None) -> Any:
    """Numba intrinsic that calls the function `symbol` without arguments; it does nothing if `symbol` is `None`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def call(typing: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if symbol:
                builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), symbol), [])
            return context.get_dummy_value()

        return types.void(), write

    return call


_pause = _calling("llvm.x86.sse2.pause" if platform.machine().lower() in {"x86_64", "amd64"} else None)
_let_others = _calling(None if sys.platform == "win32" else "sched_yield")


@njit
def wait_for(address, count):  # type: ignore[no-untyped-def]
    """Until the int32 at an address is so much; where that takes long, other threads wait for a core."""
    looks = 0
    while seen(address) < count:
        looks += 1
        if looks < _PATIENCE:
            _pause()
        else:
            _let_others()
