"""Safe reader for dictionaries of arrays and plain values pickled by `numpy.save`, based on the safe pickle interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blazen_codec_core.pickle_machine import Machine, Name

ARRAY_MAKERS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
SCALAR_MAKERS = {"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"}
ARRAY, DTYPE = "numpy ndarray", "numpy dtype"
NAMES = {*ARRAY_MAKERS, *SCALAR_MAKERS, ARRAY, DTYPE}
"""Globals that such pickles name."""


@dataclass
class Dtype:
    """A NumPy dtype under construction."""

    kind: str
    order: str = "|"

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a dtype is not a plain number")
        if any(part is not None for part in state[2:5]):
            raise ValueError("a dtype has fields")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.kind.startswith("O")

    def to_numpy(self) -> np.dtype[Any]:
        if self.kind[:1] not in frozenset("biuf") or self.kind[1:] not in ("1", "2", "4", "8"):
            raise ValueError(f"a dtype is {self.kind[:20]!r}; expected a plain number")
        dtype = np.dtype(self.kind)
        return dtype.newbyteorder(">") if self.order == ">" else dtype


@dataclass
class Array:
    """A NumPy array under construction; `items` has the elements of an object array."""

    values: Any = None
    items: list[Any] = field(default_factory=list)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or self.values is not None or self.items:
            raise ValueError("an array does not have the form that NumPy writes")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or not isinstance(shape, tuple) or len(shape) > 8:
            raise ValueError("an array does not have the form that NumPy writes")
        if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
            raise ValueError("an array has an invalid shape")
        if dtype.is_object:
            if not isinstance(data, list) or shape not in ((), (1,)) or len(data) != 1:
                raise ValueError("an object array does not have exactly one element")
            self.items = data
            return
        number = dtype.to_numpy()
        count = 1
        for size in shape:
            count *= size
        if not isinstance(data, bytes) or len(data) != count * number.itemsize:
            raise ValueError(f"an array of shape {shape} does not match its size in bytes")
        self.values = np.frombuffer(data, number).reshape(shape, order="F" if fortran else "C")


class NumpyMachine(Machine):
    """Pickle interpreter for NumPy arrays."""

    names = NAMES

    def make(self, name: str, arguments: tuple[Any, ...]) -> Any:
        return make(name, arguments)

    def change(self, target: Any, state: Any) -> None:
        if not isinstance(target, Array | Dtype):
            raise ValueError("the pickle modifies a value that cannot be modified")
        target.build(state)


def make(name: str, arguments: tuple[Any, ...]) -> Any:
    """Build the NumPy array, for plain values only."""
    if name == DTYPE and arguments and isinstance(arguments[0], str):
        return Dtype(arguments[0])
    if name in ARRAY_MAKERS and len(arguments) == 3 and arguments[0] == Name(ARRAY):
        return Array()
    if name in SCALAR_MAKERS and len(arguments) == 2 and isinstance(arguments[0], Dtype) and isinstance(arguments[1], bytes):
        dtype = arguments[0].to_numpy()
        if len(arguments[1]) != dtype.itemsize:
            raise ValueError("a number does not match its size in bytes")
        return np.frombuffer(arguments[1], dtype)[0].item()
    raise ValueError(f"it calls {name!r} with unsupported arguments")


def load(data: bytes) -> Any:
    """Read a pickled dictionary with NumPy arrays.

    Raises:
        ValueError: The pickle is truncated, has trailing data, or needs anything but arrays and plain values.
    """
    found, end = NumpyMachine().run(data)
    if end != len(data):
        raise ValueError(f"it has {len(data) - end} trailing bytes")
    return found
