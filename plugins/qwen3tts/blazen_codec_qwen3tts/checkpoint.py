"""Conversion between this project's parameter names and layout and the published ones.

The encoder has the names of transformers' Mimi. Of its codebooks only the first are used, and the others are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor

from blazen_codec_core.nn import CausalAttention, CodecNetwork, SplitResidualVectorQuantizer
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.nn.checkpoints import transformers_layout as layout
from blazen_codec_core.nn.checkpoints.conversion import Rules

from .network import Qwen3TtsNetwork

UNIT = r"^(decoder\.layers\.3\.layers\.\d+\.layers\.\d+)\.branch\.layers"
DECODER: Rules = (
    (rf"{UNIT}\.0\.", r"\1.act1."),
    (rf"{UNIT}\.1\.", r"\1.conv1.conv."),
    (rf"{UNIT}\.2\.", r"\1.act2."),
    (rf"{UNIT}\.3\.", r"\1.conv2.conv."),
    (r"^decoder\.layers\.0\.", "decoder.pre_conv.conv."),
    (r"^decoder\.layers\.1\.layers\.0\.", "decoder.pre_transformer.input_proj."),
    (r"^decoder\.layers\.1\.layers\.1\.layers\.", "decoder.pre_transformer.layers."),
    (r"^decoder\.layers\.1\.layers\.2\.", "decoder.pre_transformer.norm."),
    (r"^decoder\.layers\.1\.layers\.3\.", "decoder.pre_transformer.output_proj."),
    (r"^decoder\.layers\.2\.layers\.(\d+)\.layers\.0\.", r"decoder.upsample.\1.0.conv."),
    (r"^decoder\.layers\.2\.layers\.(\d+)\.layers\.1\.branch\.layers\.", r"decoder.upsample.\1.1."),
    (r"^(decoder\.upsample\.\d+\.1)\.0\.", r"\1.dwconv.conv."),
    (r"^(decoder\.upsample\.\d+\.1)\.1\.", r"\1.norm."),
    (r"^(decoder\.upsample\.\d+\.1)\.2\.", r"\1.pwconv1."),
    (r"^(decoder\.upsample\.\d+\.1)\.4\.", r"\1.pwconv2."),
    (r"^(decoder\.upsample\.\d+\.1)\.5\.scale$", r"\1.gamma"),
    (r"^decoder\.layers\.3\.layers\.(\d+)\.(weight|bias)$", r"decoder.decoder.\1.conv.\2"),
    (r"^decoder\.layers\.3\.layers\.(\d+)\.layers\.(\d+)\.(weight|bias)$", r"decoder.decoder.\1.block.\2.conv.\3"),
    (r"^decoder\.layers\.3\.layers\.(\d+)\.layers\.", r"decoder.decoder.\1.block."),
    (r"^decoder\.layers\.3\.layers\.", "decoder.decoder."),
    *layout.LAYERS,
    (r"\.feed_forward\.to_gate", ".mlp.gate_proj"),
    (r"\.feed_forward\.to_hidden", ".mlp.up_proj"),
    (r"\.feed_forward\.to_out", ".mlp.down_proj"),
    (r"^quantizer\.entries\.projections\.0", "decoder.quantizer.rvq_first"),
    (r"^quantizer\.entries\.projections\.1", "decoder.quantizer.rvq_rest"),
    (r"\.to_codes", ".input_proj"),
    (r"\.to_latent", ".output_proj"),
)
"""From this project's names of the decoder, but for codebooks and the projections of queries, keys and values."""
GROUPS = ("decoder.quantizer.rvq_first.vq.layers", "decoder.quantizer.rvq_rest.vq.layers")
"""Lists of the decoder's codebooks."""
SUM = "embedding_sum"
MATRICES = re.compile(r"_transformer\.|\.pwconv")
"""Published as matrices, which are convolutions of one tap here."""


def rename(name: str) -> str:
    """Convert one of this project's names, except of a codebook, to the published one."""
    if name.startswith("quantizer.search."):
        name = name.replace("search.", "", 1)
    elif not name.startswith("encoder."):
        return conversion.rename(name, DECODER)
    return f"encoder.{conversion.rename(name, layout.NAMES)}"


def names(network: Qwen3TtsNetwork) -> dict[str, str]:
    """Map this project's parameter names to the published ones; joined projections are `qkv_proj`, codebooks `embed`."""
    found = {name: rename(name) for name, _ in network.named_parameters()}
    encoders = [f"encoder.{group}" for group in layout.GROUPS]
    for part, groups, leaf in (("search", encoders, "codebook.embed"), ("entries", GROUPS, "_codebook.embed")):
        counts = cast(SplitResidualVectorQuantizer, getattr(network.quantizer, part)).counts
        books = enumerate(layout.codebook_names(counts, groups, leaf))
        found |= {f"quantizer.{part}.quantizers.{number}.codebook": name for number, name in books}
    return found


def attentions(network: CodecNetwork) -> dict[str, CausalAttention]:
    """Attention layers by their published names."""
    return layout.attentions(network, rename)


def to_published(network: Qwen3TtsNetwork) -> dict[str, Tensor]:
    """Convert a network's weights to the published layout."""
    state = layout.split_projections(conversion.to_published(network, names(network)), attentions(network))
    decoders = {name: state.pop(name) for name in list(state) if name.startswith("decoder.quantizer.")}
    state = layout.as_sums(state, initialized=True) | layout.as_sums(decoders, SUM)
    return {name: (layout.matrix(tensor) if MATRICES.search(name) else tensor).clone() for name, tensor in state.items()}


def from_published(network: Qwen3TtsNetwork, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Convert a published state dict to this project's names.

    Raises:
        WeightsUnavailable: A tensor is missing, unknown, or has an incompatible shape.
    """
    found = layout.divide_sums(layout.divide_sums(layout.join_projections(state, attentions(network))), SUM)
    search = cast(SplitResidualVectorQuantizer, network.quantizer.search)
    ignored = "|".join([layout.INITIALIZED, *map(_further_codebooks, layout.GROUPS, search.counts)])
    return conversion.from_published(network, found, names(network), origin, ignored)


def _further_codebooks(group: str, count: int) -> str:
    """Pattern of the names of an encoder's codebooks in a list, from the one numbered `count` on."""
    used = "|".join(map(str, range(count)))
    return rf"{re.escape(f'encoder.{group}')}\.(?!({used})\.).*"
