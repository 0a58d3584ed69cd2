"""Reading what `numpy.save` pickles of a dictionary of arrays and plain values, and nothing else.

A pickle is a program for a small machine. This one runs on a machine that knows how to make plain values, and what NumPy says
of an array; a name that a pickle asks for is a name here and never becomes anything, so no code can be reached through it. The
opcodes are read by Python's own `pickletools`, which executes nothing.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MARK = object()

ARRAY_MAKERS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
SCALAR_MAKERS = {"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"}
ARRAY, DTYPE = "numpy ndarray", "numpy dtype"
NAMES = {*ARRAY_MAKERS, *SCALAR_MAKERS, ARRAY, DTYPE}
"""All that such pickles name."""
LARGEST_INTEGER = 64
"""Bits of a plain number."""


@dataclass(frozen=True)
class Name:
    """Something that the pickle asks for by its name."""

    text: str


@dataclass
class Dtype:
    """A NumPy dtype in the making."""

    kind: str
    order: str = "|"

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a dtype is not of a plain kind")
        if any(part is not None for part in state[2:5]):
            raise ValueError("a dtype has fields")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.kind.startswith("O")

    def made(self) -> np.dtype[Any]:
        if self.kind[:1] not in frozenset("biuf") or self.kind[1:] not in ("1", "2", "4", "8"):
            raise ValueError(f"a dtype is {self.kind[:20]!r}, which is no plain number")
        dtype = np.dtype(self.kind)
        return dtype.newbyteorder(">") if self.order == ">" else dtype


@dataclass
class Array:
    """A NumPy array in the making; `items` are its objects, where it is of objects."""

    values: Any = None
    items: list[Any] = field(default_factory=list)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or self.values is not None or self.items:
            raise ValueError("an array is not as NumPy says one")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or not isinstance(shape, tuple) or len(shape) > 8:
            raise ValueError("an array is not as NumPy says one")
        if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
            raise ValueError("an array has no shape")
        if dtype.is_object:
            if not isinstance(data, list) or shape not in ((), (1,)) or len(data) != 1:
                raise ValueError("an array holds more than one object")
            self.items = data
            return
        made = dtype.made()
        count = 1
        for size in shape:
            count *= size
        if not isinstance(data, bytes) or len(data) != count * made.itemsize:
            raise ValueError(f"an array of shape {shape} does not fit its bytes")
        self.values = np.frombuffer(data, made).reshape(shape, order="F" if fortran else "C")


class Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError("a pickle takes what is not there")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError("a pickle changes what cannot be changed")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is MARK:
                return items[::-1]
            items.append(item)
        raise ValueError("a pickle takes what is not there")

    def named(self, text: str) -> Name:
        if text not in NAMES:
            raise ValueError(f"it asks for {text[:80]!r}, which is neither an array nor a plain value")
        return Name(text)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("a pickle calls what cannot be called")
        self.stack.append(made(function.text, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, Array | Dtype):
            raise ValueError("a pickle changes what cannot be changed")
        target.build(state)

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise ValueError("a dictionary has keys that are no names")
        target.update(zip(items[::2], items[1::2], strict=True))


def made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What NumPy would make of these arguments, as far as plain values go."""
    if name == DTYPE and arguments and isinstance(arguments[0], str):
        return Dtype(arguments[0])
    if name in ARRAY_MAKERS and len(arguments) == 3 and arguments[0] == Name(ARRAY):
        return Array()
    if name in SCALAR_MAKERS and len(arguments) == 2 and isinstance(arguments[0], Dtype) and isinstance(arguments[1], bytes):
        dtype = arguments[0].made()
        if len(arguments[1]) != dtype.itemsize:
            raise ValueError("a number does not fit its bytes")
        return np.frombuffer(arguments[1], dtype)[0].item()
    raise ValueError(f"it calls {name!r} with what that does not take")


def _push(machine: Machine, value: Any) -> None:
    machine.stack.append(value)


def _long(machine: Machine, value: int) -> None:
    if value.bit_length() > LARGEST_INTEGER:
        raise ValueError("a number is too large")
    machine.stack.append(value)


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):  # printing other things may take more memory than there is
        raise ValueError("it asks for what has no name")
    machine.stack.append(machine.named(f"{module} {name}"))


def _tuple(machine: Machine, count: int) -> None:
    items = [machine.pop() for _ in range(count)]
    machine.stack.append(tuple(items[::-1]))


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: Machine, _: Any) -> None:
    item = machine.pop()
    machine.top(list).append(item)


def _appends(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.top(list).extend(items)


def _remember(machine: Machine, place: int | None) -> None:
    machine.memo[len(machine.memo) if place is None else place] = machine.top(object)


def _recall(machine: Machine, place: int) -> None:
    if place not in machine.memo:
        raise ValueError("a pickle recalls what it did not remember")
    machine.stack.append(machine.memo[place])


OPCODES: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _push),
    **dict.fromkeys(("LONG1", "LONG4"), _long),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    "MARK": lambda machine, _: _push(machine, MARK),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: _tuple(machine, 0),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.pop_to_mark())),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": _append,
    "APPENDS": _appends,
    "GLOBAL": lambda machine, text: _push(machine, machine.named(text)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _recall),
}


def load(data: bytes) -> Any:
    """What a pickle of a dictionary holds, its arrays as NumPy's.

    Raises:
        ValueError: It is broken off, is followed by something else, or holds or asks for anything else.
    """
    machine = Machine()
    for opcode, argument, place in pickletools.genops(io.BytesIO(data)):
        if opcode.name == "STOP":
            if place is not None and place + 1 != len(data):
                raise ValueError(f"{len(data) - place - 1} bytes are left over at its end")
            result = machine.pop()
            if machine.stack:
                raise ValueError("a pickle leaves more than it holds")
            return result
        if opcode.name not in OPCODES:
            raise ValueError(f"it does {opcode.name}, which neither arrays nor plain values need")
        OPCODES[opcode.name](machine, argument)
    raise ValueError("it breaks off")
