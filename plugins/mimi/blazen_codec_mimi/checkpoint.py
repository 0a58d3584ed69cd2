"""Conversion between this project's parameter names and layout and the published ones, of transformers and the authors.

Attention's projections are one matrix here and in the authors' files, in which the two channels of a rotary pair are neighbours;
elsewhere they are half a head apart. `transformers_layout` has what else is to be known of transformers' files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from blazen_codec_core.nn import CausalAttention, CodecNetwork, SplitResidualVectorQuantizer
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.nn.checkpoints import transformers_layout as layout
from blazen_codec_core.nn.checkpoints.conversion import Rules

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


def names(network: CodecNetwork) -> dict[str, str]:
    """Map this project's parameter names to those of transformers; joined projections are `qkv_proj`, codebooks `embed`."""
    counts = cast(SplitResidualVectorQuantizer, network.quantizer).counts
    books = enumerate(layout.codebook_names(counts, layout.GROUPS, "codebook.embed"))
    return conversion.names(network, layout.NAMES) | {f"quantizer.quantizers.{number}.codebook": name for number, name in books}


def attentions(network: CodecNetwork) -> dict[str, CausalAttention]:
    """Attention layers by their names in transformers' files."""
    return layout.attentions(network, lambda name: conversion.rename(name, layout.NAMES))


def paired(weight: Tensor, attention: CausalAttention, *, neighbours: bool) -> Tensor:
    """Reorder the rows of queries and keys `(rows, …)`, so that the channels of a pair are neighbours, or half a head apart."""
    p = attention.problem
    turned, values = weight[: p.channels + p.kv_channels], weight[p.channels + p.kv_channels :]
    shape = (2, p.head_channels // 2) if neighbours else (p.head_channels // 2, 2)
    turned = turned.reshape(-1, *shape, *weight.shape[1:]).transpose(1, 2).reshape(turned.shape)
    return torch.cat([turned, values])


def to_published(network: CodecNetwork) -> dict[str, Tensor]:
    """Convert a network's weights to transformers' layout."""
    state = layout.split_projections(conversion.to_published(network, names(network)), attentions(network))
    state = layout.as_sums(state, initialized=True)
    return {name: (layout.matrix(tensor) if "_transformer." in name else tensor).clone() for name, tensor in state.items()}


def from_published(network: CodecNetwork, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Convert a published state dict of either layout to this project's names.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape.
    """
    is_authors = any(name.startswith(("encoder.model.", "decoder.model.")) for name in state)
    found = {conversion.rename(name, AUTHORS): tensor for name, tensor in state.items()} if is_authors else dict(state)
    layers = attentions(network)
    for path, attention in layers.items():
        for leaf in ("weight", "bias"):
            joined = f"{path}.qkv_proj.{leaf}"
            if joined in found and len(found[joined]) == attention.to_qkv.weight.shape[2]:
                found[joined] = paired(found[joined], attention, neighbours=False)
    found = layout.divide_sums(layout.join_projections(found, layers))
    return conversion.from_published(network, found, names(network), origin, layout.INITIALIZED)
