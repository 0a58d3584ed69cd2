"""SIMD values of float32 for an LLVM IR builder: arithmetic with them is written as with numbers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Of a vector."""
FLOAT, INDEX, LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
ALIGNED = 4
"""Bytes that addresses are multiples of."""
_BIAS, _SHIFT = 127, 23
"""Of the exponent in a float32."""


@functools.cache
def vector_of(lanes: int, values: Any = FLOAT) -> Any:
    return ir.VectorType(values, lanes)


class Vector:
    """A vector; operators take others of as many lanes, and numbers."""

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder, self.value = builder, value

    @classmethod
    def number(cls, builder: Any, number: float, lanes: int = LANES) -> Vector:
        """The same number everywhere."""
        return cls(builder, ir.Constant(vector_of(lanes), [number] * lanes))

    @classmethod
    def load(cls, builder: Any, address: Any, lanes: int = LANES) -> Vector:
        """From the address of a float32."""
        return cls(builder, builder.load(builder.bitcast(address, vector_of(lanes).as_pointer()), align=ALIGNED))

    @classmethod
    def broadcast_load(cls, builder: Any, address: Any, lanes: int = LANES) -> Vector:
        """The one value at an address."""
        nothing = ir.Constant(vector_of(lanes), ir.Undefined)
        first = builder.insert_element(nothing, builder.load(address), LANE(0))
        return cls(builder, builder.shuffle_vector(first, nothing, ir.Constant(vector_of(lanes, LANE), [0] * lanes)))

    def store(self, address: Any) -> None:
        self._builder.store(self.value, self._builder.bitcast(address, self.value.type.as_pointer()), align=ALIGNED)

    @property
    def lanes(self) -> int:
        return int(self.value.type.count)

    def like(self, number: float) -> Vector:
        """The same number everywhere, in a vector like this."""
        return Vector.number(self._builder, number, self.lanes)

    def _other(self, other: Vector | float) -> Any:
        return (other if isinstance(other, Vector) else self.like(other)).value

    def _made(self, value: Any) -> Vector:
        return Vector(self._builder, value)

    def _called(self, name: str, *others: Vector | float) -> Vector:
        """Call one of LLVM's own functions on this vector and others, and return its result."""
        values = [self.value, *map(self._other, others)]
        function = ir.FunctionType(self.value.type, [self.value.type] * len(values))
        called = cgutils.get_or_insert_function(self._builder.module, function, f"llvm.{name}.v{self.lanes}f32")
        return self._made(self._builder.call(called, values))

    def __add__(self, other: Vector | float) -> Vector:
        return self._made(self._builder.fadd(self.value, self._other(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return self._made(self._builder.fsub(self.value, self._other(other)))

    def __mul__(self, other: Vector | float) -> Vector:
        return self._made(self._builder.fmul(self.value, self._other(other)))

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._made(self._builder.fdiv(self.value, self._other(other)))

    def __neg__(self) -> Vector:
        return self._made(self._builder.fneg(self.value))

    def fma(self, factor: Vector | float, more: Vector | float) -> Vector:
        """`self * factor + more`, rounded once where the processor can."""
        return self._called("fmuladd", factor, more)

    def nearest(self) -> Vector:
        """Whole numbers."""
        return self._called("rint")

    def minimum(self, other: Vector | float) -> Vector:
        """The other, where this is larger or not a number."""
        return self._select("<", other, self, other)

    def maximum(self, other: Vector | float) -> Vector:
        """The other, where this is smaller or not a number."""
        return self._select(">", other, self, other)

    def where_positive(self, other: Vector) -> Vector:
        """The other, where this is zero or less."""
        return self._select("<=", 0.0, other, self)

    def _select(self, sign: str, against: Vector | float, then: Vector | float, otherwise: Vector | float) -> Vector:
        holds = self._builder.fcmp_ordered(sign, self.value, self._other(against))
        return self._made(self._builder.select(holds, self._other(then), self._other(otherwise)))

    def exp2(self) -> Vector:
        """Two to the power of this, which is a whole number."""
        numbers = vector_of(self.lanes, LANE)
        power = self._builder.fptosi(self.value, numbers)
        biased = self._builder.add(power, ir.Constant(numbers, [_BIAS] * self.lanes))
        bits = self._builder.shl(biased, ir.Constant(numbers, [_SHIFT] * self.lanes))
        return self._made(self._builder.bitcast(bits, self.value.type))


class Loop:
    """`count` times, at least once, values that go round with it: `next` ends its body."""

    def __init__(self, builder: Any, count: Any, carried: list[Any]) -> None:
        self._builder, self._count = builder, count
        before, self._body = builder.block, builder.append_basic_block()
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self._round = builder.phi(INDEX)
        self._round.add_incoming(INDEX(0), before)
        self.carried = [builder.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, before)

    def next(self, carried: list[Any]) -> list[Any]:
        builder, end = self._builder, self._builder.block
        round = builder.add(self._round, INDEX(1))
        self._round.add_incoming(round, end)
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, end)
        after = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", round, self._count), self._body, after)
        builder.position_at_end(after)
        return carried


def address_of(builder: Any, address: Any) -> Any:
    """An int64 as the address of float32 values."""
    return builder.inttoptr(address, FLOAT.as_pointer())


def written(write: Callable[..., None]) -> Any:
    """Numba intrinsic with int64 arguments, of the instructions that `write(builder, *arguments)` puts together."""

    def call(typing: Any, *arguments: Any) -> Any:
        def put(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            write(builder, *values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(arguments)), put

    call.__signature__ = inspect.signature(write)  # type: ignore[attr-defined]  # numba looks for a name for each argument
    return intrinsic(call)
