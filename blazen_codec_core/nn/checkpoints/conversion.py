"""Conversion of checkpoints between their publishers' names and layouts and this project's.

Plugins define names. This module handles common layouts: weight-normalized weights are two factors, and convolutions have
PyTorch's axis order. Shapes are compared with the network's before conversion; only axes of length 1 may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...errors import WeightsUnavailable
from ..layers.conv import Conv1d, ConvTranspose1d
from . import state_dicts
from .unread import Unread
from .weight_norm import fold, norm

Factors = tuple[str, str]
"""Names of the magnitude and the direction of a weight."""

FACTORS: tuple[Factors, ...] = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
"""PyTorch's old and new names."""

Rules = Sequence[tuple[str, str]]
"""Patterns and replacements, applied in order."""

BLOCKS: Rules = (
    (r"^encoder\.layers", "encoder.block"),
    (r"^decoder\.layers", "decoder.model"),
    (r"\.(branch\.)?layers\.", ".block."),
    (r"\.codebook$", ".codebook.weight"),
)
"""Rules for networks whose chains are called `block`, as in the code that many codecs derive from."""


PARTS = ("encoder.", "quantizer.", "decoder.")
"""Prefixes of every codec's tensors, after the prefix of an enclosing model."""
WRAPPERS = ("best_state", "state_dict", "model_state_dict", "model", "generator")
"""Keys under which trainers store a state dict, possibly nested."""


def tensors(content: Any, origin: str) -> dict[str, Tensor]:
    """Extract a codec's state dict from the checkpoint of a publisher, a trainer, or an enclosing model.

    A trainer's keys and the prefix of an enclosing model are removed. Other parts of that model are dropped.

    Raises:
        WeightsUnavailable: There is no state dict, or it has several codecs or NaN.
    """
    found = unwrap(content, origin)
    if isinstance(found, Mapping):
        prefix = codec_prefix(map(str, found), origin)
        found = {str(name).removeprefix(prefix): value for name, value in found.items() if str(name).startswith(prefix)}
    return state_dicts.tensors(found, origin)


def unwrap(found: Any, origin: str) -> Any:
    """Remove a trainer's keys around a state dict; return anything else unchanged."""
    for _ in WRAPPERS:
        if not isinstance(found, Mapping) or all(isinstance(value, Tensor) for value in found.values()):
            break
        inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            if isinstance(name := found.get("pretrained"), str):
                raise WeightsUnavailable(f"{origin} holds no weights, but names a model that has them. Load {name!r:.100}")
            break
        found = inner
    return found


def codec_prefix(names: Iterable[str], origin: str) -> str:
    """Return the prefix of a codec's tensors, such as `audio_encoder.`; empty if there is no enclosing model.

    Raises:
        WeightsUnavailable: There are several codecs.
    """
    starts: dict[str, set[str]] = {}
    for name in names:
        for part in PARTS:
            if (start := f".{name}".find(f".{part}")) >= 0:
                starts.setdefault(name[:start], set()).add(part)
    whole = sorted((prefix for prefix, parts in starts.items() if parts == set(PARTS)), key=len)
    if len(whole) > 1 and whole[0]:
        raise WeightsUnavailable(f"{origin} holds several codecs, {' and '.join(whole)}. Save the tensors of one alone")
    return whole[0] if whole else ""


def half_names(names: Sequence[str], half: str) -> set[str]:
    """Return the names of the tensors of a codec's encoder or decoder, by this module's convention of names.

    They begin with the half, such as `encoder.layers.0.weight` or `encoder_transformer.layers.0.norm1.weight`.
    """
    start = f"{codec_prefix(names, 'the file')}{half}"
    return {name for name in names if name.startswith((f"{start}.", f"{start}_"))}


def names(network: nn.Module, rules: Rules) -> dict[str, str]:
    """Map this project's parameter names to the published ones."""
    return {ours: rename(ours, rules) for ours, _ in network.named_parameters()}


def rename(name: str, rules: Rules) -> str:
    """Convert one of this project's names to the published one."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def alphas(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reshape the factors of Snake activations to `(1, channels, 1)`."""
    return {name: tensor.reshape(1, -1, 1) if name.endswith(".alpha") else tensor for name, tensor in state.items()}


def to_published(network: nn.Module, names: Mapping[str, str], factors: Factors | None = None) -> dict[str, Tensor]:
    """Convert a network's parameters to the published names and layout.

    Args:
        network: Network.
        names: Published names by this project's.
        factors: Names for the factors of each convolution's weight; `None` does not factor.
    """
    state: dict[str, Tensor] = {}
    for ours, name in names.items():
        module, leaf = _home(network, ours)
        tensor = getattr(module, leaf).detach()
        if isinstance(module, Conv1d | ConvTranspose1d) and leaf == "weight":
            tensor = module.unpack(tensor)
            if factors:
                stem = name.removesuffix("weight")
                state[stem + factors[0]], state[stem + factors[1]] = norm(tensor), tensor
                continue
        state[name] = tensor
    return state


def from_published(
    network: nn.Module, published: Mapping[str, Tensor], names: Mapping[str, str], origin: str, ignored: str = ""
) -> dict[str, Tensor]:
    """Convert published tensors to this project's names and layout, for `state_dicts.load`.

    Args:
        network: Network.
        published: Published tensors.
        names: Published names by this project's.
        origin: Origin of the tensors for messages.
        ignored: Pattern of published names that the network does not need.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape.
    """
    left = {name: tensor for name, tensor in published.items() if not re.fullmatch(ignored, name)}

    def wrong(what: str) -> WeightsUnavailable:
        return WeightsUnavailable(f"the weights of {origin} are of another model: {what}")

    def take(name: str) -> Tensor:
        if name not in left:
            raise wrong(f"{name} is missing")
        state_dicts.check_weight(name, left[name], origin)
        return left.pop(name)

    def check_shape(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
        if tuple(shape) != tuple(wanted):
            raise wrong(f"{name} has shape {tuple(shape)}; expected {tuple(wanted)}")

    def whole(name: str, shape: Sequence[int]) -> Tensor:
        stem = name.removesuffix("weight")
        for magnitude, direction in FACTORS:
            if stem + magnitude in left:
                g, v = take(stem + magnitude), take(stem + direction)
                check_shape(stem + magnitude, g.shape, (v.shape[0], *[1] * (v.dim() - 1)) if v.dim() else (1,))
                check_shape(name, v.shape, shape)  # checked before memory is allocated
                if isinstance(v, Unread):
                    return v
                if not bool(norm(v).all()):
                    raise WeightsUnavailable(
                        f"{origin}: {stem}{direction} has a row of zeros, which has no direction. The weight would be NaN. "
                        f"Save the whole weight as {name}, or change the row"
                    )
                return fold(g, v)
        return take(name)

    state: dict[str, Tensor] = {}
    for ours, name in names.items():
        module, leaf = _home(network, ours)
        wanted = getattr(module, leaf)
        if isinstance(module, Conv1d | ConvTranspose1d) and leaf == "weight":
            shape = module.unpack(wanted).shape
            weight = whole(name, shape)
            if weight.dim() == 2 and shape[2] == 1:  # a plain matrix
                weight = weight[..., None]
            check_shape(name, weight.shape, shape)
            state[ours] = module.pack(weight)
        else:
            tensor = take(name)
            if long_axes(tensor.shape) != long_axes(wanted.shape):
                check_shape(name, tensor.shape, wanted.shape)
            state[ours] = tensor.reshape(wanted.shape)
    if left:
        raise wrong(f"unknown tensors ({len(left)}), such as {min(left)}")
    return state


def long_axes(shape: Sequence[int]) -> list[int]:
    """Return the lengths of axes longer than 1, in order."""
    return [length for length in shape if length != 1]


def _home(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf
