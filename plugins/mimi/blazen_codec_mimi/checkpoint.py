"""Conversion between this project's parameter names and layout and the published ones, of transformers and the authors.

Attention's projections are one matrix here, and three in transformers' files. The authors' files have one as well, in which the
two channels of a rotary pair are neighbours; elsewhere they are half a head apart. Codebooks are published as sums of vectors and
the counts of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from blazen_codec_core.nn import CausalAttention, CodecNetwork, SplitResidualVectorQuantizer
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.nn.checkpoints.conversion import Rules

HUB: Rules = (
    (r"^encoder\.layers\.0\.(.*)\.(weight|bias)$", r"encoder.\1.conv.\2"),
    (r"^decoder\.layers\.2\.(.*)\.(weight|bias)$", r"decoder.\1.conv.\2"),
    (r"^(encoder|decoder)\.layers\.1\.layers", r"\1_transformer.layers"),
    (r"^encoder\.layers\.2\.weight$", "downsample.conv.weight"),
    (r"^decoder\.layers\.0\.weight$", "upsample.conv.weight"),
    (r"\.branch\.layers\.", ".block."),
    (r"\.attention\.", ".self_attn."),
    (r"\.self_attn\.to_qkv", ".self_attn.qkv_proj"),
    (r"\.self_attn\.to_out", ".self_attn.o_proj"),
    (r"\.feed_forward\.to_hidden", ".mlp.fc1"),
    (r"\.feed_forward\.to_out", ".mlp.fc2"),
    (r"\.attention_norm", ".input_layernorm"),
    (r"\.feed_forward_norm", ".post_attention_layernorm"),
    (r"\.attention_scale", ".self_attn_layer_scale"),
    (r"\.feed_forward_scale", ".mlp_layer_scale"),
    (r"^quantizer\.projections\.0", "quantizer.semantic_residual_vector_quantizer"),
    (r"^quantizer\.projections\.1", "quantizer.acoustic_residual_vector_quantizer"),
    (r"\.to_codes", ".input_proj"),
    (r"\.to_latent", ".output_proj"),
)
"""From this project's names to those of transformers, but for codebooks and the projections of queries, keys and values."""
AUTHORS: Rules = (
    (r"^downsample\.conv\.conv\.conv", "downsample.conv"),
    (r"^upsample\.convtr\.convtr\.convtr", "upsample.conv"),
    (r"\.(conv\.conv|convtr\.convtr)\.(weight|bias)$", r".conv.\2"),
    (r"^(encoder|decoder)\.model", r"\1.layers"),
    (r"_transformer\.transformer", "_transformer"),
    (r"\.in_proj(s\.0\.|\.|_)(weight|bias)$", r".qkv_proj.\2"),
    (r"\.out_proj(s\.0)?\.(weight|bias)$", r".o_proj.\2"),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
    (r"\.rvq_first\.", ".semantic_residual_vector_quantizer."),
    (r"\.rvq_rest\.", ".acoustic_residual_vector_quantizer."),
    (r"\.vq\.layers\.(\d+)\._codebook\.", r".layers.\1.codebook."),
    (r"\.codebook\.(_initialized|inited)$", ".codebook.initialized"),
    (r"\.codebook\.cluster_size$", ".codebook.cluster_usage"),
    (r"\.codebook\.(embedding_sum|embed_avg)$", ".codebook.embed_sum"),
)
"""From the authors' names, those of earlier releases included, to those of transformers."""
IGNORED = r".*\.codebook\.initialized"
SPLIT = ("q_proj", "k_proj", "v_proj")
LEAST_COUNT = 1e-5
"""Least count by which a sum of vectors is divided."""


def names(network: CodecNetwork) -> dict[str, str]:
    """Map this project's parameter names to those of transformers; joined projections are `qkv_proj`, codebooks `embed`."""
    found = conversion.names(network, HUB)
    groups = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer")
    places = (
        (group, book)
        for group, count in zip(groups, cast(SplitResidualVectorQuantizer, network.quantizer).counts, strict=True)
        for book in range(count)
    )
    for number, (group, book) in enumerate(places):
        found[f"quantizer.quantizers.{number}.codebook"] = f"quantizer.{group}.layers.{book}.codebook.embed"
    return found


def attentions(network: CodecNetwork) -> dict[str, CausalAttention]:
    """Attention layers by their names in transformers' files."""
    found = ((conversion.rename(f"{name}.", HUB), module) for name, module in network.named_modules())
    return {name.removesuffix("."): module for name, module in found if isinstance(module, CausalAttention)}


def paired(weight: Tensor, attention: CausalAttention, *, neighbours: bool) -> Tensor:
    """Reorder the rows of queries and keys `(rows, …)`, so that the channels of a pair are neighbours, or half a head apart."""
    p = attention.problem
    turned, values = weight[: p.channels + p.kv_channels], weight[p.channels + p.kv_channels :]
    shape = (2, p.head_channels // 2) if neighbours else (p.head_channels // 2, 2)
    turned = turned.reshape(-1, *shape, *weight.shape[1:]).transpose(1, 2).reshape(turned.shape)
    return torch.cat([turned, values])


def to_published(network: CodecNetwork) -> dict[str, Tensor]:
    """Convert a network's weights to transformers' layout."""
    state: dict[str, Tensor] = {}
    attention = attentions(network)
    for name, tensor in conversion.to_published(network, names(network)).items():
        path, _, leaf = name.rpartition(".")
        if path.endswith(".qkv_proj"):
            p = attention[path.removesuffix(".qkv_proj")].problem
            parts = torch.split(matrix(tensor), [p.channels, p.kv_channels, p.kv_channels])
            state |= {name.replace("qkv_proj", part): weight for part, weight in zip(SPLIT, parts, strict=True)}
        elif leaf == "embed":
            state[f"{path}.embed_sum"] = tensor
            state[f"{path}.cluster_usage"], state[f"{path}.initialized"] = torch.ones(len(tensor)), torch.ones(1)
        else:
            state[name] = matrix(tensor) if "_transformer." in name else tensor
    return {name: tensor.clone() for name, tensor in state.items()}


def matrix(tensor: Tensor) -> Tensor:
    """A convolution of one tap as a matrix; vectors are unchanged."""
    return tensor[..., 0] if tensor.dim() == 3 else tensor


def from_published(network: CodecNetwork, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Convert a published state dict of either layout to this project's names.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape.
    """
    is_authors = any(name.startswith(("encoder.model.", "decoder.model.")) for name in state)
    found = {conversion.rename(name, AUTHORS): tensor for name, tensor in state.items()} if is_authors else dict(state)
    for path, attention in attentions(network).items():
        for leaf in ("weight", "bias"):
            joined, parts = f"{path}.qkv_proj.{leaf}", [f"{path}.{part}.{leaf}" for part in SPLIT]
            if joined in found and len(found[joined]) == attention.to_qkv.weight.shape[2]:
                found[joined] = paired(found[joined], attention, neighbours=False)
            elif all(part in found for part in parts):
                found[joined] = torch.cat([found.pop(part) for part in parts])
    for name in [name for name in found if name.endswith(".codebook.embed_sum")]:
        path = name.removesuffix("_sum")
        counts = found.get(path.replace("embed", "cluster_usage"))
        if counts is not None and counts.shape == found[name].shape[:1]:
            found[path] = found.pop(name) / found.pop(path.replace("embed", "cluster_usage")).clamp(min=LEAST_COUNT)[:, None]
    return conversion.from_published(network, found, names(network), origin, IGNORED)
