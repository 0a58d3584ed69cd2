"""Safe pickle interpreter: makes plain values, and other objects only as defined by a subclass; never runs code.

A pickle is a program for a stack machine. Python's machine imports and calls what the pickle names. Here names stay names, and a
subclass defines the results of calls. Opcodes are parsed by `pickletools`, which executes nothing.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

MARK = object()
PICKLES = (b"PK", b"\x80")
"""Magic bytes of PyTorch checkpoints: an archive with a pickle, or a pickle."""
MOST_STEPS = 1_000_000
"""Most opcodes of a pickle. Each takes about a microsecond, and may make a value a hundred times its size."""


@dataclass(frozen=True)
class Name:
    """A global that the pickle names, as `module name`."""

    text: str


@dataclass(frozen=True)
class Opaque:
    """Placeholder for an object that needs code to make; `text` is the name of its constructor."""

    text: str


class Machine:
    """Interpreter with the stack and the memo of a pickle.

    Attributes:
        names: Globals that pickles may name.
        longest_number: Largest size of an integer in bits.
    """

    names: ClassVar[Collection[str]] = ()
    longest_number: ClassVar[int] = 64

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def make(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return the result of calling a global; raise `ValueError` if it does not accept the arguments."""
        raise ValueError(f"it calls {name!r} with unsupported arguments")

    def change(self, target: Any, state: Any) -> None:
        """Apply a state to an object (opcode BUILD); raise `ValueError` if that is not supported."""
        raise ValueError("the pickle modifies a value that cannot be modified")

    def persistent_load(self, said: Any) -> Any:
        """Return the object of a persistent id; raise `ValueError` if there is none."""
        raise ValueError("the pickle has persistent ids, which are not supported")

    def is_key(self, key: Any) -> bool:
        """Tell whether a dictionary may have this key. Hashing a deeply nested key would crash the process."""
        return isinstance(key, str)

    def unknown(self, text: str) -> Name:
        """Handle a global that is not in `names`; raise `ValueError` by default."""
        raise ValueError(f"it names {text[:80]!r}, which is neither an array nor a plain value")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError("the pickle reads from an empty stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or self.stack[-1] is MARK or not isinstance(self.stack[-1], kind):
            raise ValueError("the pickle modifies a value that cannot be modified")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is MARK:
                return items[::-1]
            items.append(item)
        raise ValueError("the pickle reads from an empty stack")

    def named(self, text: str) -> Name:
        return Name(text) if text in self.names else self.unknown(text)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if isinstance(function, Opaque):
            self.stack.append(function)
            return
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("the pickle calls a value that is not callable")
        self.stack.append(self.make(function.text, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top(object)
        if not isinstance(target, Opaque):
            self.change(target, state)

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.top(object), Opaque):
            self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        if isinstance(self.top(object), Opaque):
            return
        target = self.top(dict)
        if len(items) % 2 or not all(self.is_key(key) for key in items[::2]):
            raise ValueError("a dictionary has keys that are not names")
        target.update(zip(items[::2], items[1::2], strict=True))

    def run(self, data: bytes, start: int = 0) -> tuple[Any, int]:
        """Interpret a pickle; return its value and end offset.

        Raises:
            ValueError: The pickle is truncated, too long, or needs anything but `names`.
        """
        stream = io.BytesIO(data)
        stream.seek(start)
        self.stack, self.memo = [], {}
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= MOST_STEPS:
                raise ValueError(f"it has more than {MOST_STEPS} opcodes")
            if opcode.name == "STOP":
                result = self.pop()
                if self.stack:
                    raise ValueError("the pickle leaves more than one value")
                return result, stream.tell()
            if opcode.name not in OPCODES:
                raise ValueError(f"it uses the opcode {opcode.name}, which neither arrays nor plain values need")
            OPCODES[opcode.name](self, argument)
        raise ValueError("it is truncated")


def _push(machine: Machine, value: Any) -> None:
    machine.stack.append(value)


def _long(machine: Machine, value: int) -> None:
    if value.bit_length() > machine.longest_number:
        raise ValueError("a number is too large")
    machine.stack.append(value)


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):  # formatting other objects may exhaust memory
        raise ValueError("it names a global by something other than text")
    machine.stack.append(machine.named(f"{module} {name}"))


def _tuple(machine: Machine, count: int) -> None:
    items = [machine.pop() for _ in range(count)]
    machine.stack.append(tuple(items[::-1]))


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _new(machine: Machine, _: Any) -> None:
    machine.reduce()  # classes are names as well


def _new_with_names(machine: Machine, _: Any) -> None:
    machine.pop()
    machine.reduce()


def _put(machine: Machine, index: int | None) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.top(object)


def _get(machine: Machine, index: int) -> None:
    if index not in machine.memo:
        raise ValueError("the pickle reads a memo entry that it did not write")
    machine.stack.append(machine.memo[index])


OPCODES: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINSTRING"), _push),
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
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "EMPTY_SET": lambda machine, _: _push(machine, []),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: _push(machine, tuple(machine.pop_to_mark())),
    "NEWOBJ": _new,
    "NEWOBJ_EX": _new_with_names,
    "GLOBAL": lambda machine, text: _push(machine, machine.named(text)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: _push(machine, machine.persistent_load(machine.pop())),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
}
