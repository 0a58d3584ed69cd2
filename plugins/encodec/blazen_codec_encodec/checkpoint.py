"""The published checkpoints' names, to ours and back: the authors' own, and those of the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from blazen_codec_core.nn import ConvTranspose1d
from blazen_codec_core.nn.checkpoints import conversion


@dataclass(frozen=True)
class Layout:
    """Names that a publisher gives to layers and weights.

    Attributes:
        layers: The list of an encoder's or decoder's layers.
        conv: A convolution inside one of them.
        transposed: A transposed one.
        norms: The norm after each of the two.
        codebook: The entries of a codebook.
        ignored: What only training needed.
    """

    layers: str
    conv: str
    transposed: str
    norms: tuple[str, str]
    codebook: str
    ignored: str


AUTHORS = Layout(
    layers="model",
    conv="conv.conv",
    transposed="convtr.convtr",
    norms=("conv.norm", "convtr.norm"),
    codebook="quantizer.vq.layers.{}._codebook.embed",
    ignored=r"quantizer\.vq\.layers\.\d+\._codebook\.(inited|cluster_size|embed_avg)",
)
HUB = Layout(
    layers="layers",
    conv="conv",
    transposed="conv",
    norms=("norm", "norm"),
    codebook="quantizer.layers.{}.codebook.embed",
    ignored=r"quantizer\.layers\.\d+\.codebook\.(inited|cluster_size|embed_avg)",
)


def names(network: nn.Module, layout: Layout) -> dict[str, str]:
    """Our names of the network's parameters to the published ones."""
    return {ours: _name(network, ours, layout) for ours, _ in network.named_parameters()}


def _name(network: nn.Module, ours: str, layout: Layout) -> str:
    if book := re.fullmatch(r"quantizer\.quantizers\.(\d+)\.codebook", ours):
        return layout.codebook.format(book[1])
    if stage := re.fullmatch(r"(.*)\.layers\.([01])\.(weight|bias)", ours):
        path, place, leaf = stage.groups()
        transposed = isinstance(network.get_submodule(f"{path}.layers.0"), ConvTranspose1d)
        kind = layout.norms[transposed] if place == "1" else layout.transposed if transposed else layout.conv
        ours = f"{path}.{kind}.{leaf}"
    ours = ours.replace(".branch.layers.", ".block.")
    return re.sub(r"^(encoder|decoder)\.layers\.", rf"\1.{layout.layers}.", ours)


def to_published(network: nn.Module, *, weight_norm: bool) -> dict[str, Tensor]:
    """The network's weights as the authors lay them out, without what only training needs.

    Args:
        weight_norm: Whether each convolution's weight is factored, as for the models that have no other norm.
    """
    factors = conversion.FACTORS[0] if weight_norm else None
    return conversion.to_published(network, names(network, AUTHORS), factors)


def from_published(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A published state dict of either layout under our names; weights may be factored or whole.

    Raises:
        WeightsUnavailable: A name is missing, unknown, or of a shape that cannot be converted; `origin` is named.
    """
    layout = HUB if any(name.startswith("encoder.layers.") for name in state) else AUTHORS
    return conversion.from_published(network, state, names(network, layout), origin, layout.ignored)
