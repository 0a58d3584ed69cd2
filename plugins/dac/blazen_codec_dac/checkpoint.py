"""Conversion between this project's parameter names and the published ones, of the authors and the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from blazen_codec_core import WeightsUnavailable
from blazen_codec_core.architectures import check_config
from blazen_codec_core.nn.checkpoints import conversion

from .specs import DacSpec

STATE, METADATA, SETTINGS = "state_dict", "metadata", "kwargs"
"""Content of the authors' files: weights, and metadata with the settings."""


def hub_rules(spec: DacSpec) -> conversion.Rules:
    """Rules for the Hub's names, which number layers by kind and from one."""
    last = len(spec.architecture.encoder_rates) + 1
    unit = r"layers\.{}\.branch\.layers\.{}\."
    units = [
        (rf"^({part}\.layers\.\d+\.){unit.format(place, layer)}", rf"\1res_unit{number}.{name}.")
        for part, places in (("encoder", (0, 1, 2)), ("decoder", (2, 3, 4)))
        for number, place in enumerate(places, 1)
        for layer, name in enumerate(("snake1", "conv1", "snake2", "conv2"))
    ]
    ends = [
        (rf"^(encoder|decoder)\.layers\.{place}\.", rf"\1.{name}.")
        for place, name in ((0, "conv1"), (last, "snake1"), (last + 1, "conv2"))
    ]
    inside = [
        (r"^(encoder\.layers\.\d+)\.layers\.3\.", r"\1.snake1."),
        (r"^(encoder\.layers\.\d+)\.layers\.4\.", r"\1.conv1."),
        (r"^(decoder\.layers\.\d+)\.layers\.0\.", r"\1.snake1."),
        (r"^(decoder\.layers\.\d+)\.layers\.1\.", r"\1.conv_t1."),
    ]
    numbers = [(rf"^(encoder|decoder)\.layers\.{place}\.", rf"\1.block.{place - 1}.") for place in range(1, last)]
    return (*units, *inside, *ends, *numbers, (r"\.codebook$", ".codebook.weight"))


def to_published(network: nn.Module, *, weight_norm: bool = True) -> dict[str, Tensor]:
    """Convert a network's weights to the authors' layout; without `weight_norm`, weights are not factored."""
    names = conversion.names(network, conversion.BLOCKS)
    return conversion.alphas(conversion.to_published(network, names, conversion.FACTORS[0] if weight_norm else None))


def own_settings(content: Any) -> Mapping[str, Any] | None:
    """Return the settings in a file of the authors; `None` if it has none."""
    metadata = content.get(METADATA) if isinstance(content, Mapping) else None
    settings = metadata.get(SETTINGS) if isinstance(metadata, Mapping) else None
    return settings if isinstance(settings, Mapping) else None


def from_published(spec: DacSpec, network: nn.Module, content: Any, origin: str, *, described: bool = False) -> dict[str, Tensor]:
    """Convert a published file of either layout to this project's names; weights may be factored or whole.

    Args:
        described: The settings are known from a config, so the file need not have them.

    Raises:
        WeightsUnavailable: The file has another model, or a tensor is missing, unknown, or has an incompatible shape.
    """
    if isinstance(content, Mapping) and STATE in content:
        settings = own_settings(content)
        if settings is None and not described:
            raise WeightsUnavailable(f"{origin} has no {METADATA} with {SETTINGS}, so its model is unknown")
        if settings is not None:
            check_config(spec.architecture, dict(settings), origin, spec.name)
        content = content[STATE]
    state = conversion.tensors(content, origin)
    hub = any(name.startswith("encoder.conv1.") for name in state)
    rules = hub_rules(spec) if hub else conversion.BLOCKS
    return conversion.from_published(network, state, conversion.names(network, rules), origin)
