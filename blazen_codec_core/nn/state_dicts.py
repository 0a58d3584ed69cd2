"""Reading weights, and nothing but weights, from files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsUnavailable, reason


def read(path: Path) -> Any:
    """What a `.safetensors` file or a PyTorch checkpoint holds; no code in it is ever run.

    Raises:
        WeightsUnavailable: It cannot be read, or holds more than plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes PyTorch's own reader raise is not limited to what it documents
        raise WeightsUnavailable(f"{path} is not a file of weights: {reason(error)}") from error


def tensors(found: Any, origin: str) -> dict[str, Tensor]:
    """The state dict in `found`, as float32; `origin` is where it was found, for messages.

    Raises:
        WeightsUnavailable: It is something else, or holds NaN.
    """
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsUnavailable(f"{origin} holds no state dict: names and tensors are expected")
    state = {str(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsUnavailable(f"{origin}: {name} holds NaN or infinite values")
    return state


def read_config(path: Path) -> Any:
    """What a published `config.json` says; `None` if it is no JSON."""
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError):
        return None


def check_config(architecture: BaseModel, described: Any, origin: str, name: str) -> None:
    """Raises `WeightsUnavailable` unless a published description is of this architecture.

    Args:
        architecture: Its fields are named as there, or have aliases that are; what else is there does not matter.
        described: Names and values.
        origin: Where it was found, for messages.
        name: Of the model, for messages.
    """
    try:
        found = type(architecture).model_validate(described)
    except ValidationError as error:
        raise WeightsUnavailable(f"{origin} is not a config of a model like {name}: {reason(error)}") from error
    for field in type(architecture).model_fields:
        ours, theirs = getattr(architecture, field), getattr(found, field)
        if ours != theirs:
            raise WeightsUnavailable(f"{origin} is of another model: {field} is {theirs}, but {name} has {ours}")


def load(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fills a network, every parameter and nothing else.

    Raises:
        WeightsUnavailable: Names or shapes do not fit; the message says which.
    """
    wanted = dict(network.state_dict())
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [n for n in sorted(wanted.keys() & state.keys()) if wanted[n].shape != state[n].shape]
    problems = [
        *(f"{len(names)} {what}, such as {names[0]}" for what, names in (("missing", missing), ("unknown", extra)) if names),
        *(f"{n} is {tuple(state[n].shape)} in place of {tuple(wanted[n].shape)}" for n in wrong[:1]),
    ]
    if problems:
        raise WeightsUnavailable(f"the weights of {origin} are of another model: {'; '.join(problems)}")
    network.load_state_dict(state)
