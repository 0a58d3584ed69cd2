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
"""Float32 values in a vector."""
FLOAT, INDEX, LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
ALIGNED = 4
"""Alignment of addresses in bytes."""
_BIAS, _SHIFT = 127, 23
"""Bias and bit position of the exponent in a float32."""


@functools.cache
def vector_of(lanes: int, values: Any = FLOAT) -> Any:
    return ir.VectorType(values, lanes)


class Vector:
    """A vector; operators take others of as many lanes, and numbers."""

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder, self.value = builder, value

    @classmethod
    def splat(cls, builder: Any, value: float, lanes: int = LANES) -> Vector:
        """`value` in every lane."""
        return cls(builder, ir.Constant(vector_of(lanes), [value] * lanes))

    @classmethod
    def load(cls, builder: Any, address: Any, lanes: int = LANES) -> Vector:
        """Load `lanes` values from the address of a float32."""
        return cls(builder, builder.load(builder.bitcast(address, vector_of(lanes).as_pointer()), align=ALIGNED))

    @classmethod
    def broadcast_load(cls, builder: Any, address: Any, lanes: int = LANES) -> Vector:
        """Load one value, and copy it to every lane."""
        undefined = ir.Constant(vector_of(lanes), ir.Undefined)
        first = builder.insert_element(undefined, builder.load(address), LANE(0))
        return cls(builder, builder.shuffle_vector(first, undefined, ir.Constant(vector_of(lanes, LANE), [0] * lanes)))

    def store(self, address: Any) -> None:
        self._builder.store(self.value, self._builder.bitcast(address, self.value.type.as_pointer()), align=ALIGNED)

    @property
    def lanes(self) -> int:
        return int(self.value.type.count)

    def splat_like(self, value: float) -> Vector:
        """`value` in every lane of a vector of this length."""
        return Vector.splat(self._builder, value, self.lanes)

    def _operand(self, other: Vector | float) -> Any:
        return (other if isinstance(other, Vector) else self.splat_like(other)).value

    def _wrap(self, value: Any) -> Vector:
        return Vector(self._builder, value)

    def _call(self, name: str, *others: Vector | float) -> Vector:
        """Call one of LLVM's own functions on this vector and others, and return its result."""
        values = [self.value, *map(self._operand, others)]
        function = ir.FunctionType(self.value.type, [self.value.type] * len(values))
        callee = cgutils.get_or_insert_function(self._builder.module, function, f"llvm.{name}.v{self.lanes}f32")
        return self._wrap(self._builder.call(callee, values))

    def __add__(self, other: Vector | float) -> Vector:
        return self._wrap(self._builder.fadd(self.value, self._operand(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return self._wrap(self._builder.fsub(self.value, self._operand(other)))

    def __mul__(self, other: Vector | float) -> Vector:
        return self._wrap(self._builder.fmul(self.value, self._operand(other)))

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._wrap(self._builder.fdiv(self.value, self._operand(other)))

    def __neg__(self) -> Vector:
        return self._wrap(self._builder.fneg(self.value))

    def fma(self, factor: Vector | float, addend: Vector | float) -> Vector:
        """`self * factor + addend`, rounded once where the processor has such an instruction."""
        return self._call("fmuladd", factor, addend)

    def rint(self) -> Vector:
        """Nearest integers."""
        return self._call("rint")

    def minimum(self, other: Vector | float) -> Vector:
        """The lesser of both; `other` where this is NaN."""
        return self._select("<", other, self, other)

    def maximum(self, other: Vector | float) -> Vector:
        """The greater of both; `other` where this is NaN."""
        return self._select(">", other, self, other)

    def where_positive(self, other: Vector) -> Vector:
        """This where it is positive, else `other`."""
        return self._select("<=", 0.0, other, self)

    def halves(self) -> tuple[Vector, Vector]:
        """The first and the second half of the lanes."""
        middle = self.lanes // 2
        places = (range(middle), range(middle, self.lanes))
        masks = [ir.Constant(vector_of(middle, LANE), list(half)) for half in places]
        first, second = (self._wrap(self._builder.shuffle_vector(self.value, self.value, mask)) for mask in masks)
        return first, second

    def above(self, bound: float, value: Vector) -> Vector:
        """`value` where this is above a bound, else 0; `value` where this is NaN."""
        return self._select("<=", bound, 0.0, value)

    def _select(self, comparison: str, against: Vector | float, then: Vector | float, otherwise: Vector | float) -> Vector:
        mask = self._builder.fcmp_ordered(comparison, self.value, self._operand(against))
        return self._wrap(self._builder.select(mask, self._operand(then), self._operand(otherwise)))

    def exp2(self) -> Vector:
        """Two to the power of this, which holds integers."""
        integers = vector_of(self.lanes, LANE)
        power = self._builder.fptosi(self.value, integers)
        biased = self._builder.add(power, ir.Constant(integers, [_BIAS] * self.lanes))
        bits = self._builder.shl(biased, ir.Constant(integers, [_SHIFT] * self.lanes))
        return self._wrap(self._builder.bitcast(bits, self.value.type))


class CountedLoop:
    """A loop of `count` iterations, at least one, in LLVM's IR.

    The code that follows its construction is the body; `advance` ends it.

    Attributes:
        phis: The loop's variables inside the body, one for each initial value.
    """

    def __init__(self, builder: Any, count: Any, initial: list[Any]) -> None:
        self._builder, self._count = builder, count
        entry, self._body = builder.block, builder.append_basic_block()
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self._index = builder.phi(INDEX)
        self._index.add_incoming(INDEX(0), entry)
        self.phis = [builder.phi(value.type) for value in initial]
        for phi, value in zip(self.phis, initial, strict=True):
            phi.add_incoming(value, entry)

    def advance(self, values: list[Any]) -> list[Any]:
        """Give the variables their values for the next iteration, and end the body; returns those after the loop."""
        builder, end = self._builder, self._builder.block
        index = builder.add(self._index, INDEX(1))
        self._index.add_incoming(index, end)
        for phi, value in zip(self.phis, values, strict=True):
            phi.add_incoming(value, end)
        exit_block = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", index, self._count), self._body, exit_block)
        builder.position_at_end(exit_block)
        return values


def address_of(builder: Any, address: Any) -> Any:
    """Cast an int64 to a pointer to float32 values."""
    return builder.inttoptr(address, FLOAT.as_pointer())


def forbid_reordering(builder: Any) -> None:
    """Let the compiler move no load or store past this point; it emits no instruction."""
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)


def intrinsic_from(build: Callable[..., None]) -> Any:
    """Numba intrinsic with int64 arguments, whose instructions `build(builder, *arguments)` emits."""

    def call(typing: Any, *arguments: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            build(builder, *values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(arguments)), emit

    call.__signature__ = inspect.signature(build)  # type: ignore[attr-defined]  # numba asks for a name for each argument
    return intrinsic(call)
