"""Checkpoints under their publishers' names and in their layout, to this project's and back.

Names are the plugin's to say. What layouts have in common is here: weight-normalised weights are two factors, convolutions have
PyTorch's order of axes, and axes of length 1 do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..errors import WeightsUnavailable
from .conv import Conv1d, ConvTranspose1d
from .weight_norm import fold, norm

Factors = tuple[str, str]
"""What the magnitude and the direction of a weight are called."""

FACTORS: tuple[Factors, ...] = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
"""PyTorch's older and newer names."""

Rules = Sequence[tuple[str, str]]
"""Patterns and what they become, in the order in which they are applied."""

BLOCKS: Rules = (
    (r"^encoder\.layers", "encoder.block"),
    (r"^decoder\.layers", "decoder.model"),
    (r"\.(branch\.)?layers\.", ".block."),
    (r"\.codebook$", ".codebook.weight"),
)
"""Networks whose every chain is a `block`, as in the code that many codecs descend from."""


def names(network: nn.Module, rules: Rules) -> dict[str, str]:
    """Our names of the network's parameters to the published ones."""
    return {ours: rename(ours, rules) for ours, _ in network.named_parameters()}


def rename(name: str, rules: Rules) -> str:
    """One of our names to the published one."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def alphas(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the factors of Snake activations as `(1, channels, 1)`."""
    return {name: tensor.reshape(1, -1, 1) if name.endswith(".alpha") else tensor for name, tensor in state.items()}


def to_published(network: nn.Module, names: Mapping[str, str], factors: Factors | None = None) -> dict[str, Tensor]:
    """The parameters of a network as published.

    Args:
        names: Ours to the published ones.
        factors: Under which names each convolution's weight is factored; `None` leaves it whole.
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
    """Published tensors under our names, for `state_dicts.load`.

    Args:
        names: Ours to the published ones.
        origin: Of the tensors, for messages.
        ignored: A pattern for published names that the network does not need.

    Raises:
        WeightsUnavailable: A name is missing, unknown, or of a shape that cannot be converted.
    """
    left = {name: tensor for name, tensor in published.items() if not re.fullmatch(ignored, name)}

    def wrong(what: str) -> WeightsUnavailable:
        return WeightsUnavailable(f"the weights of {origin} are of another model: {what}")

    def take(name: str) -> Tensor:
        if name not in left:
            raise wrong(f"{name} is missing")
        return left.pop(name)

    def whole(name: str) -> Tensor:
        stem = name.removesuffix("weight")
        for magnitude, direction in FACTORS:
            if stem + magnitude in left:
                return fold(take(stem + magnitude), take(stem + direction))
        return take(name)

    state: dict[str, Tensor] = {}
    for ours, name in names.items():
        module, leaf = _home(network, ours)
        try:
            if isinstance(module, Conv1d | ConvTranspose1d) and leaf == "weight":
                weight = whole(name)
                state[ours] = module.pack(weight if weight.dim() > 2 else weight[..., None])
            else:
                tensor, wanted = take(name), getattr(module, leaf)
                state[ours] = tensor.reshape(wanted.shape) if tensor.squeeze().shape == wanted.squeeze().shape else tensor
        except RuntimeError as error:
            raise wrong(f"{name} has another shape") from error
    if left:
        raise wrong(f"{len(left)} unknown, such as {min(left)}")
    return state


def _home(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf
