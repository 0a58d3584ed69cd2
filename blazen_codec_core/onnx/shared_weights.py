"""Weights of several graphs in one file, each once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

LEAST_BYTES = 1 << 10
"""Smaller tensors stay in the graphs."""
ALIGNMENT = 64
"""Bytes that the beginning of a tensor is a multiple of."""


class SharedWeights:
    """A file that graphs of its folder refer to as external data."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> SharedWeights:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def save(self, model: onnx_ir.Model, path: Path) -> None:
        """Write a graph beside the file, and its large tensors into the file unless they are there."""
        import onnx_ir

        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= LEAST_BYTES:
                offset = self._place(tensor.tobytes())
                value.const_value = onnx_ir.ExternalTensor(
                    self._path.name,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=str(value.name),
                    base_dir=path.parent,
                )
        onnx_ir.save(model, path)

    def _place(self, content: bytes) -> int:
        """Offset of a tensor's content."""
        digest = hashlib.sha256(content).digest()
        if digest not in self._offsets:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._offsets[digest] = self._file.tell()
            self._file.write(content)
        return self._offsets[digest]
