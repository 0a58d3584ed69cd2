"""Names and layouts of transformers' files of the codecs that `nn.seanet_transformer` builds.

Attention's projections are one matrix here, and three in the files. Codebooks are published as sums of vectors and the counts of
these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..layers.causal_attention import CausalAttention
from .conversion import Rules

LAYERS: Rules = (
    (r"\.attention\.", ".self_attn."),
    (r"\.self_attn\.to_qkv", ".self_attn.qkv_proj"),
    (r"\.self_attn\.to_out", ".self_attn.o_proj"),
    (r"\.attention_norm", ".input_layernorm"),
    (r"\.feed_forward_norm", ".post_attention_layernorm"),
    (r"\.attention_scale", ".self_attn_layer_scale"),
    (r"\.feed_forward_scale", ".mlp_layer_scale"),
)
"""From this project's names of transformer layers, but for those of the feed-forward part."""
NAMES: Rules = (
    (r"^encoder\.layers\.0\.(.*)\.(weight|bias)$", r"encoder.\1.conv.\2"),
    (r"^decoder\.layers\.2\.(.*)\.(weight|bias)$", r"decoder.\1.conv.\2"),
    (r"^(encoder|decoder)\.layers\.1\.layers", r"\1_transformer.layers"),
    (r"^encoder\.layers\.2\.weight$", "downsample.conv.weight"),
    (r"^decoder\.layers\.0\.weight$", "upsample.conv.weight"),
    (r"\.branch\.layers\.", ".block."),
    *LAYERS,
    (r"\.feed_forward\.to_hidden", ".mlp.fc1"),
    (r"\.feed_forward\.to_out", ".mlp.fc2"),
    (r"^quantizer\.projections\.0", "quantizer.semantic_residual_vector_quantizer"),
    (r"^quantizer\.projections\.1", "quantizer.acoustic_residual_vector_quantizer"),
    (r"\.to_codes", ".input_proj"),
    (r"\.to_latent", ".output_proj"),
)
"""From this project's names, but for codebooks. Projections of queries, keys and values remain joined, as `qkv_proj`."""
GROUPS = ("quantizer.semantic_residual_vector_quantizer.layers", "quantizer.acoustic_residual_vector_quantizer.layers")
"""Lists of codebooks."""
INITIALIZED = r".*\.codebook\.initialized"
"""Tensors of no use after training."""
SPLIT = ("q_proj", "k_proj", "v_proj")
SUM, COUNT = "embed_sum", "cluster_usage"
LEAST_COUNT = 1e-5
"""Least count by which a sum of vectors is divided."""


def codebook_names(counts: Sequence[int], groups: Sequence[str], leaf: str) -> list[str]:
    """List the published names of codebooks in lists of `counts` codebooks; `leaf` follows the number in a list."""
    return [f"{group}.{book}.{leaf}" for group, count in zip(groups, counts, strict=True) for book in range(count)]


def attentions(network: nn.Module, rename: Callable[[str], str]) -> dict[str, CausalAttention]:
    """Attention layers by their published names; `rename` converts the beginning of a parameter's name, up to a dot."""
    found = ((name, module) for name, module in network.named_modules() if isinstance(module, CausalAttention))
    return {rename(f"{name}.").removesuffix("."): module for name, module in found}


def matrix(tensor: Tensor) -> Tensor:
    """A convolution of one tap as a matrix; vectors are unchanged."""
    return tensor[..., 0] if tensor.dim() == 3 else tensor


def split_projections(state: Mapping[str, Tensor], layers: Mapping[str, CausalAttention]) -> dict[str, Tensor]:
    """Replace each joined projection by those of queries, keys and values."""
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        path = name.rpartition(".")[0]
        if path.endswith(".qkv_proj"):
            p = layers[path.removesuffix(".qkv_proj")].problem
            parts = torch.split(matrix(tensor), [p.channels, p.kv_channels, p.kv_channels])
            split |= {name.replace("qkv_proj", part): weight for part, weight in zip(SPLIT, parts, strict=True)}
        else:
            split[name] = tensor
    return split


def join_projections(state: Mapping[str, Tensor], layers: Mapping[str, CausalAttention]) -> dict[str, Tensor]:
    """Replace projections of queries, keys and values by a joined one, where all three are there."""
    joined = dict(state)
    for path in layers:
        for leaf in ("weight", "bias"):
            parts = [f"{path}.{part}.{leaf}" for part in SPLIT]
            if all(part in joined for part in parts):
                joined[f"{path}.qkv_proj.{leaf}"] = torch.cat([joined.pop(part) for part in parts])
    return joined


def divide_sums(state: Mapping[str, Tensor], total: str = SUM) -> dict[str, Tensor]:
    """Replace sums of vectors, which are named `total`, and their counts by the entries of a codebook, `embed`."""
    divided = dict(state)
    for name in [name for name in divided if name.endswith(f".{total}")]:
        path = name.removesuffix(total)
        counts = divided.get(path + COUNT)
        if counts is not None and counts.shape == divided[name].shape[:1]:
            divided[f"{path}embed"] = divided.pop(name) / divided.pop(path + COUNT).clamp(min=LEAST_COUNT)[:, None]
    return divided


def as_sums(state: Mapping[str, Tensor], total: str = SUM, *, initialized: bool = False) -> dict[str, Tensor]:
    """Replace the entries of codebooks, which are named `embed`, by sums of one vector each.

    Args:
        total: Name of the sums.
        initialized: Add the flags of trained codebooks.
    """
    sums: dict[str, Tensor] = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "embed":
            sums |= {f"{path}.{total}": tensor, f"{path}.{COUNT}": torch.ones(len(tensor))}
            sums |= {f"{path}.initialized": torch.ones(1)} if initialized else {}
        else:
            sums[name] = tensor
    return sums
