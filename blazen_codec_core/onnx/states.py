"""States of streams as named tensors, which a graph takes and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from ..nn.layers.base import State

StateT = TypeVar("StateT", bound=State)


def named_tensors(state: State) -> dict[str, Tensor]:
    """Tensors of a state by their paths, such as `encoder.0.tail`. Those without elements are left out."""
    tensors: dict[str, Tensor] = {}

    def collect(path: str, tensor: Tensor) -> Tensor:
        if tensor.numel():
            tensors[path] = tensor
        return tensor

    _mapped(state, "", collect)
    return tensors


def with_tensors(state: StateT, tensors: Mapping[str, Tensor]) -> StateT:
    """Copy of a state with tensors of other values, by the names of `named_tensors`."""
    copy: StateT = _mapped(state, "", lambda path, tensor: tensors.get(path, tensor).clone())
    return copy


def _mapped(value: Any, path: str, change: Callable[[str, Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(path.removeprefix("."), value)
    if isinstance(value, State):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        names = {name: path if name == "states" else f"{path}.{name}" for name in fields}
        return type(value)(**{name: _mapped(part, names[name], change) for name, part in fields.items()})
    if isinstance(value, list):
        return [_mapped(part, f"{path}.{number}", change) for number, part in enumerate(value)]
    return value
