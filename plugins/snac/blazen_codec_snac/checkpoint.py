"""Conversion between this project's parameter names and layout and the published ones.

A published name is `encoder.block.1.block.0.block.3.parametrizations.weight.original1`. This project's modules have the same
nesting, so conversion only renames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from blazen_codec_core import WeightsUnavailable
from blazen_codec_core.nn import LocalAttention
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.nn.layers.attention import LONGEST_PERIOD

IGNORED = r".*\.rel_pos\.(inv_freq|scale)"
"""Pattern of buffers that follow from the architecture."""
ROUGH = 2**-8
"""Relative tolerance of such buffers, which may have been stored in bfloat16."""
LINEAR = re.compile(r".*\.to_(qkv|out)\.weight")
"""Attention's projections are plain matrices in the published files."""


def frequencies(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return the published names and values of the frequencies of attention layers."""
    for ours, module in network.named_modules():
        if isinstance(module, LocalAttention):
            name = conversion.rename(f"{ours}.rel_pos.inv_freq", conversion.BLOCKS)
            yield name, module.frequencies


def to_published(network: nn.Module, *, weight_norm: bool = True) -> dict[str, Tensor]:
    """Convert a network's weights to the published layout; without `weight_norm`, weights are not factored."""
    names = conversion.names(network, conversion.BLOCKS)
    matrices = {ours: name for ours, name in names.items() if LINEAR.fullmatch(name)}
    others = {ours: name for ours, name in names.items() if ours not in matrices}
    state = conversion.to_published(network, others, conversion.FACTORS[1] if weight_norm else None)
    state |= {name: weight[..., 0] for name, weight in conversion.to_published(network, matrices).items()}
    state = conversion.alphas(state)
    state |= dict(frequencies(network))
    return {name: tensor.clone() for name, tensor in state.items()}


def from_published(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Convert a published state dict, with factored or whole weights, to this project's names.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape, or the frequencies of positions
            differ.
    """
    for name, wanted in frequencies(network):
        if name in state and not (
            state[name].shape == wanted.shape and torch.allclose(state[name].float(), wanted, rtol=ROUGH, atol=0)
        ):
            raise WeightsUnavailable(
                f"{origin}: {name} does not follow from the settings; expected the frequencies "
                f"{LONGEST_PERIOD:.0f} ** -(i / {2 * len(wanted)}), i = 0, 2, 4 …"
            )
    return conversion.from_published(network, state, conversion.names(network, conversion.BLOCKS), origin, IGNORED)
