"""Safe reader of `torch.save` files, for tensors and plain values only.

Claimed sizes are checked before memory is allocated, and nothing that a file names is called.

A checkpoint is a pickle with the bytes of its storages. In an archive these are records beside the pickle; in files of PyTorch
before 1.6 they follow it. A storage is allocated only if the file is large enough for it, and tensors are views of storages, so
memory is bounded by the file size.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from ...pickle_machine import Machine, Name, Opaque
from .archives import Record, check_stored, records, start_of
from .unread import Select, Unread, may_stay_unread, unread

LARGEST_PICKLE = 16 << 20
"""Largest pickle in bytes; it has everything but the storages."""
MOST_VALUES = 1 << 20
"""Most values in a checkpoint, including nested ones; a pickle can nest a value in itself."""
DEEPEST = 32
"""Deepest nesting of values."""
MOST_AXES = 16
LONGEST_NAME = 500
"""Longest name in characters, because messages repeat names."""
LONGEST_KEY = 8
"""Most parts of a tuple key. Keys are hashed at each use, and integers can be crafted to collide."""
LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""Values of the first two pickles of legacy files; a third describes the system."""
REBUILDS = "torch._utils _rebuild_"
STORED = {f"{REBUILDS}tensor", f"{REBUILDS}tensor_v2", f"{REBUILDS}tensor_v3"}
WRAPPED = {f"{REBUILDS}parameter", f"{REBUILDS}parameter_with_state"}
ODD = {
    f"{REBUILDS}nested_tensor": "a nested tensor",
    f"{REBUILDS}sparse_tensor": "a sparse tensor",
    f"{REBUILDS}sparse_csr_tensor": "a sparse tensor",
    f"{REBUILDS}qtensor": "a quantised tensor",
    f"{REBUILDS}wrapper_subclass": "a tensor subclass",
    f"{REBUILDS}device_tensor_from_numpy": "a tensor of another device",
    f"{REBUILDS}device_tensor_from_cpu_tensor": "a tensor of another device",
}
META, TYPED = f"{REBUILDS}meta_tensor_no_storage", "torch._tensor _rebuild_from_type_v2"
ORDERED, ENCODED, SIZE, SETS = "collections OrderedDict", "_codecs encode", "torch Size", {"builtins set", "__builtin__ set"}
STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "QInt8": torch.int8,
        "QUInt8": torch.uint8,
        "QInt32": torch.int32,
    }.items()
} | {"torch.storage UntypedStorage": torch.uint8, "torch UntypedStorage": torch.uint8}
TYPES = {f"torch {name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
PLAIN = {
    "torch device",
    "torch.serialization _get_layout",
    "torch Tensor",
    "torch.nn.parameter Parameter",
    "torch.nn.parameter Buffer",
    *(f"torch {name}" for name in ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric")),
}
"""Names of types and properties of tensors, which make no objects."""


@dataclass(frozen=True)
class OddTensor:
    """Placeholder for a tensor of an unsupported kind."""

    kind: str


@dataclass(frozen=True)
class Storage:
    """Bytes of a storage, with its declared type."""

    held: Tensor
    dtype: torch.dtype


class _Store:
    """The storages of a file, allocated as the pickle refers to them and filled afterwards.

    Args:
        room: File size in bytes, which limits the total size of the storages.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.held: dict[str, Tensor] = {}

    def ask(self, key: str, count: int) -> Tensor:
        """Return the storage `key` of `count` bytes; raise `ValueError` if the file is too small."""
        if key not in self.held:
            self._room -= count
            if self._room < 0:
                raise ValueError(f"its storage {key[:40]!r} claims {count} bytes, more than the rest of the file")
            self.held[key] = torch.empty(count, dtype=torch.uint8)
        elif len(self.held[key]) != count:
            raise ValueError(f"its storage {key[:40]!r} has two sizes, {len(self.held[key])} and {count} bytes")
        return self.held[key]


def _fill(file: BinaryIO, start: int, storage: Tensor) -> None:
    file.seek(start)
    if len(storage) and file.readinto(storage.numpy()) != len(storage):  # type: ignore[attr-defined]
        raise ValueError("it is truncated within a storage")


class TensorMachine(Machine):
    """Pickle interpreter for PyTorch's tensors."""

    names: ClassVar[Collection[str]] = {
        *STORED,
        *WRAPPED,
        *ODD,
        META,
        TYPED,
        ORDERED,
        ENCODED,
        SIZE,
        *SETS,
        *STORAGES,
        *TYPES,
        *PLAIN,
    }
    longest_number: ClassVar[int] = 4096

    def __init__(self, store: _Store) -> None:
        super().__init__()
        self._store = store
        self._copied = 0

    def unknown(self, text: str) -> Name:
        """Accept an unknown name; calling it gives an `Opaque`."""
        return Name(text)

    def count_copy(self, values: Any, item_size: int) -> Any:
        """Account for copies of values of `item_size` bytes, because a pickle can request the same copy a million times."""
        self._copied += item_size * len(values)
        if self._copied > LARGEST_PICKLE:
            raise ValueError(f"copies of its values take more than {LARGEST_PICKLE} bytes")
        return values

    def is_key(self, key: Any) -> bool:
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) > LONGEST_KEY or any(isinstance(part, int) and part.bit_length() > 63 for part in parts):
            return False
        if any(isinstance(part, str | bytes) and len(part) > LONGEST_NAME for part in parts):
            raise ValueError(f"it has names of more than {LONGEST_NAME} characters")
        return all(part is None or isinstance(part, str | int | float | bytes) for part in parts)

    def make(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in STORED and len(arguments) >= 4:
            return _tensor(*arguments[:4], *arguments[6:])
        if name in WRAPPED and arguments and isinstance(arguments[0], Tensor | OddTensor):
            return arguments[0]
        if name == TYPED and len(arguments) >= 3 and isinstance(arguments[0], Name) and isinstance(arguments[2], tuple):
            if arguments[0].text in STORED | WRAPPED | {META}:
                return self.make(arguments[0].text, arguments[2])
            return OddTensor("a tensor subclass")
        if name in ODD:
            return OddTensor(ODD[name])
        if name == META and len(arguments) >= 2 and isinstance(arguments[0], Name) and arguments[0].text in TYPES:
            return torch.empty(_counts(arguments[1], "size"), dtype=TYPES[arguments[0].text], device="meta")
        if name == ORDERED and not arguments:
            return OrderedDict()
        if name == ENCODED and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
            return self.count_copy(arguments[0], 1).encode("latin1")
        if name == SIZE and len(arguments) == 1 and isinstance(arguments[0], tuple | list):
            return tuple(self.count_copy(arguments[0], 8))
        if name in SETS and len(arguments) == 1 and isinstance(arguments[0], list):
            return list(self.count_copy(arguments[0], 8))
        if name in {"torch device", "torch.serialization _get_layout"}:
            return Name(name)
        return super().make(name, arguments) if name in self.names else Opaque(name)

    def change(self, target: Any, state: Any) -> None:
        """Ignore the attributes of a state dict; only its tensors are used."""
        if not isinstance(target, OrderedDict) or not isinstance(state, dict):
            super().change(target, state)

    def persistent_load(self, said: Any) -> Storage:
        if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] not in ("storage", b"storage"):
            raise ValueError("a persistent id is not a storage")
        _, kind, key, _, count, *view = said
        if not isinstance(kind, Name) or kind.text not in STORAGES or not isinstance(key, str) or not _is_count(count):
            raise ValueError("a storage does not have the form that PyTorch writes")
        if view and view[0] is not None:
            raise ValueError(
                "a storage is a view of another, which PyTorch before 0.4 wrote. Load and save it with a newer PyTorch"
            )
        dtype = STORAGES[kind.text]
        return Storage(self._store.ask(key, count * dtype.itemsize), dtype)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Tensor | OddTensor:
    """Make a view of a storage. `more` may have a type, for untyped storages, and flags such as conjugation."""
    if not isinstance(storage, Storage) or not _is_count(offset):
        raise ValueError("a tensor does not have the form that PyTorch writes")
    dtype = storage.dtype
    for said in more:
        if isinstance(said, Name) and said.text in TYPES:
            dtype = TYPES[said.text]
        elif said:
            return OddTensor("a lazily negated or conjugated tensor")
    shape, steps = _counts(size, "size"), _counts(stride, "stride")
    if len(shape) != len(steps):
        raise ValueError(f"a tensor has {len(shape)} sizes and {len(steps)} strides")
    held = len(storage.held) // dtype.itemsize
    if math.prod(shape) and offset + sum((length - 1) * step for length, step in zip(shape, steps, strict=True)) >= held:
        raise ValueError(f"a tensor of shape {shape} exceeds its storage of {held} values")
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.empty(0, dtype=dtype).set_(storage.held.untyped_storage(), offset, shape, steps)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _counts(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MOST_AXES or not all(_is_count(value) for value in values):
        raise ValueError(f"the {what} of a tensor is not a list of at most {MOST_AXES} numbers")
    if what == "size" and math.prod(max(1, value) for value in values) >= 1 << 48:
        raise ValueError("a tensor claims more values than any file holds")
    return tuple(values)


def read(path: Path, select: Select | None = None) -> Any:
    """Read a checkpoint of tensors and plain values.

    Args:
        select: Selects tensors that are not needed; they become `Unread`.

    Raises:
        WeightsUnavailable: The archive is damaged or compressed.
        ValueError: The file is damaged, claims more than it has, or has other objects.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    found = _read_archive(path, select) if is_archive else _read_legacy(path, select)
    if isinstance(found, Opaque | Name):
        raise ValueError(
            f"it is {found.text.replace(' ', '.')[:80]}, and objects that need code are never created. "
            "If you trust it, save its state dict alone with torch.save, and pass that"
        )
    return found


def _read_archive(path: Path, select: Select | None) -> Any:
    members = records(path)
    check_stored(path, members)
    name = next(name for name in members if f"/{name}".endswith("/data.pkl"))
    root = name.removesuffix("data.pkl")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        order = members.get(f"{root}byteorder")
        if order is not None and _read_record(file, order, size, 16) != b"little":
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
        store = _Store(size)
        found, _ = TensorMachine(store).run(_read_record(file, members[name], size, LARGEST_PICKLE))
        found, needed = _selected(found, store, select)
        for key, storage in store.held.items():
            record = members.get(f"{root}data/{key}")
            if record is None or record.size != len(storage):
                held = "is missing" if record is None else f"has {record.size}"
                raise ValueError(f"its storage {key[:40]!r} claims {len(storage)} bytes, but its record {held}")
            if key in needed:
                _fill(file, start_of(file, record, size), storage)
    return found


def _read_record(file: BinaryIO, record: Record, size: int, most: int) -> bytes:
    if record.size > most:
        raise ValueError(f"its data beside tensors has {record.size} bytes; at most {most} are read")
    file.seek(start_of(file, record, size))
    return file.read(record.size)


def _read_legacy(path: Path, select: Select | None) -> Any:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data, offset = file.read(LARGEST_PICKLE), 0
        store = _Store(size)
        machine = TensorMachine(store)
        for wanted in LEGACY:
            said, offset = machine.run(data, offset)
            if said != wanted:
                raise ValueError("it is a pickle that PyTorch did not write")
        system, offset = machine.run(data, offset)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
        found, offset = machine.run(data, offset)
        keys, offset = machine.run(data, offset)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(store.held):
            raise ValueError("its list of storages does not match its tensors")
        found, needed = _selected(found, store, select)
        for key in keys:
            if key in needed:
                _fill(file, offset + 8, store.held[key])  # after the number of values
            offset += 8 + len(store.held[key])
    return found


def _selected(found: Any, store: _Store, select: Select | None) -> tuple[Any, Collection[str]]:
    """Return the content of a file without the values of selected tensors, and the storages that are needed."""
    _check_plain(found)
    if select is None:
        return found, store.held.keys()
    found = _without(found, select)
    needed = {tensor.untyped_storage().data_ptr() for tensor in _tensors(found) if not isinstance(tensor, Unread)}
    return found, {key for key, storage in store.held.items() if storage.data_ptr() in needed}


def _without(found: Any, select: Select) -> Any:
    """Replace selected tensors of state dicts, which may be nested in other dicts."""
    if not isinstance(found, dict):
        return found
    needless = select([name for name in found if isinstance(name, str)])
    return {
        name: unread(value.shape, value.dtype)
        if name in needless and isinstance(value, Tensor) and not value.is_meta and may_stay_unread(value.shape, value.dtype)
        else _without(value, select)
        for name, value in found.items()
    }


def _tensors(found: Any) -> Iterator[Tensor]:
    """Yield all tensors in plain values."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict | list | tuple):
        for value in found.values() if isinstance(found, dict) else found:
            yield from _tensors(value)


def _check_plain(found: Any) -> None:
    """Raise `ValueError` if values are nested so deeply or often that traversing them would not end."""
    level, count = [found], 0
    for _ in range(DEEPEST):
        nested = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple)]
        count += sum(map(len, nested))
        if count > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values, or values that contain themselves")
        level = [inner for values in nested for inner in values]
        if not level:
            return
    raise ValueError(f"its values are nested more than {DEEPEST} levels deep")
