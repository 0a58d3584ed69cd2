"""The published checkpoints' names and shapes, to ours and back.

A published name is `encoder.block.1.block.0.block.3.parametrizations.weight.original1`; ours follows the same nesting, so that
names are a matter of renaming.
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
"""Buffers that follow from the architecture."""
ROUGH = 2**-8
"""By what part buffers may differ from what follows: they may have been through bfloat16."""
LINEAR = re.compile(r".*\.to_(qkv|out)\.weight")
"""Attention's projections are plain matrices in the published files."""


def frequencies(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The published name and the values of each attention's frequencies."""
    for ours, module in network.named_modules():
        if isinstance(module, LocalAttention):
            name = conversion.rename(f"{ours}.rel_pos.inv_freq", conversion.BLOCKS)
            yield name, module.frequencies


def to_published(network: nn.Module, *, weight_norm: bool = True) -> dict[str, Tensor]:
    """The network's weights under published names; without `weight_norm`, each weight whole in place of its two factors."""
    names = conversion.names(network, conversion.BLOCKS)
    matrices = {ours: name for ours, name in names.items() if LINEAR.fullmatch(name)}
    others = {ours: name for ours, name in names.items() if ours not in matrices}
    state = conversion.to_published(network, others, conversion.FACTORS[1] if weight_norm else None)
    state |= {name: weight[..., 0] for name, weight in conversion.to_published(network, matrices).items()}
    state = conversion.alphas(state)
    state |= dict(frequencies(network))
    return {name: tensor.clone() for name, tensor in state.items()}


def from_published(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A published state dict, or one with whole weights in place of the factors, under our names.

    Raises:
        WeightsUnavailable: A name is missing, unknown, or of a shape that cannot be converted, or positions turn at other
            frequencies; `origin` is named.
    """
    for name, wanted in frequencies(network):
        if name in state and not (
            state[name].shape == wanted.shape and torch.allclose(state[name].float(), wanted, rtol=ROUGH, atol=0)
        ):
            raise WeightsUnavailable(
                f"{origin}: {name} is not what follows from the settings; attention with the frequencies "
                f"{LONGEST_PERIOD:.0f} ** -(i / {2 * len(wanted)}), i = 0, 2, 4 …, is supported"
            )
    return conversion.from_published(network, state, conversion.names(network, conversion.BLOCKS), origin, IGNORED)
