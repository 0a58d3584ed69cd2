"""The published checkpoints' names and shapes, to ours and back.

A published name is `encoder.block.1.block.0.block.3.parametrizations.weight.original1`; ours follows the same nesting, so that
names are a matter of renaming.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from blazen_codec_core.nn import LocalAttention, published

IGNORED = r".*\.rel_pos\.(inv_freq|scale)"
"""Buffers that follow from the architecture."""
LINEAR = re.compile(r".*\.to_(qkv|out)\.weight")
"""Attention's projections are plain matrices in the published files."""


def to_published(network: nn.Module, *, weight_norm: bool = True) -> dict[str, Tensor]:
    """The network's weights under published names; without `weight_norm`, each weight whole in place of its two factors."""
    names = published.names(network, published.BLOCKS)
    matrices = {ours: name for ours, name in names.items() if LINEAR.fullmatch(name)}
    others = {ours: name for ours, name in names.items() if ours not in matrices}
    state = published.to_published(network, others, published.FACTORS[1] if weight_norm else None)
    state |= {name: weight[..., 0] for name, weight in published.to_published(network, matrices).items()}
    state = published.alphas(state)
    for ours, module in network.named_modules():
        if isinstance(module, LocalAttention):
            frequencies = module.get_buffer("rotation")[1, : module.head_channels // 2]
            state[published.rename(f"{ours}.rel_pos.inv_freq", published.BLOCKS)] = frequencies
    return {name: tensor.clone() for name, tensor in state.items()}


def from_published(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A published state dict, or one with whole weights in place of the factors, under our names.

    Raises:
        WeightsUnavailable: A name is missing, unknown, or of a shape that cannot be converted; `origin` is named.
    """
    return published.from_published(network, state, published.names(network, published.BLOCKS), origin, IGNORED)
