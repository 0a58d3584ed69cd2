"""Conversion between this project's parameter names and the published ones, of the authors and the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blazen_codec_core.nn import ConvTranspose1d
from blazen_codec_core.nn.checkpoints import conversion


@dataclass(frozen=True)
class Layout:
    """A publisher's names of layers and weights.

    Attributes:
        layers: List of an encoder's or decoder's layers.
        conv: Convolution in a layer.
        transposed: Transposed convolution in a layer.
        norms: Norms after the two kinds of convolutions.
        codebook: Entries of a codebook.
        ignored: Pattern of tensors that only training needs.
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
    """Map this project's parameter names to the published ones."""
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


def to_published(network: nn.Module, *, weight_norm: bool, layout: Layout = AUTHORS) -> dict[str, Tensor]:
    """Convert a network's weights to a publisher's layout, without tensors that only training needs.

    Args:
        weight_norm: Factor the weights of convolutions, as in models without another norm.
    """
    factors = conversion.FACTORS[0] if weight_norm else None
    return conversion.to_published(network, names(network, layout), factors)


def averages(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of codebooks that the authors' training updates: entries and their shares, as after one use of each."""
    made: dict[str, Tensor] = {}
    for name, entries in state.items():
        if name.endswith("codebook.embed"):
            stem = name.removesuffix("embed")
            made[f"{stem}inited"] = torch.ones(1)
            made[f"{stem}cluster_size"] = torch.ones(len(entries))
            made[f"{stem}embed_avg"] = entries.clone()
    return made


def from_published(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Convert a published state dict of either layout to this project's names; weights may be factored or whole.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape.
    """
    layout = HUB if any(name.startswith("encoder.layers.") for name in state) else AUTHORS
    return conversion.from_published(network, state, names(network, layout), origin, layout.ignored)
