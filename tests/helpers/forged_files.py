"""Checkpoints and safetensors written by hand, that may say of themselves whatever they like."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Stored:
    """A storage of so many values, as a pickler that writes checkpoints says it."""

    def __init__(self, key: str, values: int, kind: type = torch.FloatStorage, *more: object) -> None:
        self.said = ("storage", kind, key, "cpu", values, *more)


class Called:
    """Something that is made by calling a function as the file is read."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.called


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.said if isinstance(obj, Stored) else None


def pickled(content: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def view(storage: Stored, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Called:
    return Called(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def archive(path: Path, content: object, storages: dict[str, bytes], how: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """A checkpoint as `torch.save` lays it out, whatever it holds."""
    with zipfile.ZipFile(path, "w", how) as made:
        made.writestr("w/data.pkl", content if isinstance(content, bytes) else pickled(content))
        for key, data in storages.items():
            made.writestr(f"w/data/{key}", data)
        for name, data in more.items():
            made.writestr(f"w/{name}", data)


def legacy(path: Path, content: object, storages: dict[str, bytes], keys: list[str] | None = None) -> None:
    """A checkpoint as PyTorch before 1.6 wrote it."""
    heads = [pickled(part) for part in (MAGIC, PROTOCOL, SYSTEM, content, list(storages) if keys is None else keys)]
    path.write_bytes(b"".join(heads) + b"".join(struct.pack("<q", len(data) // 4) + data for data in storages.values()))


def safetensors(path: Path, header: object, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
