"""The published checkpoints' names and shapes, to ours and back.

A published name is `encoder.block.1.block.0.block.3.parametrizations.weight.original1`; ours follows the same nesting, so that
names are a matter of renaming, and shapes of each layer's `pack`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from blazen_codec_core import WeightsUnavailable
from blazen_codec_core.nn import Conv1d, ConvTranspose1d, LocalAttention, Snake, VectorQuantizer
from blazen_codec_core.nn.weight_norm import fold, norm

from .network import SnacNetwork

MAGNITUDE, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
IGNORED = re.compile(r".*\.rel_pos\.(inv_freq|scale)")
"""Buffers that follow from the architecture."""


def published_name(name: str) -> str:
    """Our name of a module to the published one."""
    name = re.sub(r"^encoder\.layers", "encoder.block", re.sub(r"^decoder\.layers", "decoder.model", name))
    return name.replace(".branch.layers.", ".block.").replace(".layers.", ".block.")


def _is_linear(name: str) -> bool:
    """Attention's projections are plain matrices in the published files."""
    return name.endswith(("to_qkv", "to_out"))


def to_published(network: SnacNetwork, *, weight_norm: bool = True) -> dict[str, Tensor]:
    """The network's weights under published names; without `weight_norm`, each weight whole in place of its two factors."""
    state: dict[str, Tensor] = {}
    for ours, module in network.named_modules():
        name = published_name(ours)
        if isinstance(module, Conv1d | ConvTranspose1d):
            weight = module.unpack(module.weight.detach())
            if _is_linear(name):
                state[f"{name}.weight"] = weight[..., 0].contiguous()
            elif weight_norm:
                state[f"{name}.{MAGNITUDE}"], state[f"{name}.{DIRECTION}"] = norm(weight), weight
            else:
                state[f"{name}.weight"] = weight
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.detach()
        elif isinstance(module, Snake):
            state[f"{name}.alpha"] = module.alpha.detach().reshape(1, -1, 1)
        elif isinstance(module, VectorQuantizer):
            state[f"{name}.codebook.weight"] = module.codebook.detach()
        elif isinstance(module, LocalAttention):
            frequencies = module.get_buffer("rotation")[1, : module.head_channels // 2]
            state[f"{name}.rel_pos.inv_freq"] = frequencies.clone()
        elif isinstance(module, nn.LayerNorm):
            state[f"{name}.weight"], state[f"{name}.bias"] = module.weight.detach(), module.bias.detach()
    return state


def from_published(network: SnacNetwork, published: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A published state dict, or one with whole weights in place of the factors, under our names.

    Raises:
        WeightsUnavailable: A name is missing, unknown, or of a shape that cannot be converted; `origin` is named.
    """
    left = {name: tensor for name, tensor in published.items() if not IGNORED.fullmatch(name)}
    state: dict[str, Tensor] = {}

    def take(name: str) -> Tensor:
        if name not in left:
            raise WeightsUnavailable(f"the weights of {origin} are of another model: {name} is missing")
        return left.pop(name)

    for ours, module in network.named_modules():
        name = published_name(ours)
        try:
            if isinstance(module, Conv1d | ConvTranspose1d):
                factored = f"{name}.{MAGNITUDE}" in left
                weight = fold(take(f"{name}.{MAGNITUDE}"), take(f"{name}.{DIRECTION}")) if factored else take(f"{name}.weight")
                state[f"{ours}.weight"] = module.pack(weight[..., None] if _is_linear(name) else weight)
                if module.bias is not None:
                    state[f"{ours}.bias"] = take(f"{name}.bias")
            elif isinstance(module, Snake):
                state[f"{ours}.alpha"] = take(f"{name}.alpha").reshape(-1)
            elif isinstance(module, VectorQuantizer):
                state[f"{ours}.codebook"] = take(f"{name}.codebook.weight")
            elif isinstance(module, nn.LayerNorm):
                state[f"{ours}.weight"], state[f"{ours}.bias"] = take(f"{name}.weight"), take(f"{name}.bias")
        except RuntimeError as error:
            raise WeightsUnavailable(f"the weights of {origin} are of another model: {name} has another shape") from error
    if left:
        raise WeightsUnavailable(f"the weights of {origin} are of another model: {len(left)} unknown, such as {min(left)}")
    return state
