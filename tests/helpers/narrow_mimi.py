"""A Mimi with fewer and narrower layers than the published one, in transformers' layout."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core.weights import RandomWeights
from blazen_codec_mimi.backend import MimiBackend
from blazen_codec_mimi.checkpoint import to_published
from blazen_codec_mimi.specs import SPECS, MimiArchitecture, custom

NARROW = MimiArchitecture(
    num_filters=8,
    hidden_size=64,
    upsample_groups=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    intermediate_size=96,
    sliding_window=30,
    codebook_dim=32,
    vector_quantization_hidden_dimension=32,
    layer_scale_initial_scale=0.3,
)
"""Mimi's rates, strides and codebooks; layer scales large enough for attention to matter."""
FROM_WEIGHTS = {"architecture": "from-weights", "device": "cpu"}


def write_narrow(folder: Path, seed: int = 0) -> Path:
    """Write random weights and their config to a folder, as transformers does; return it."""
    published = SPECS[0]
    spec = custom(NARROW, name="narrow", description="Narrow", license="MIT", weights=published.weights)
    backend = MimiBackend(spec, bc.LoadOptions(device="cpu"))
    save_file(to_published(backend.build(RandomWeights(seed))), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(backend.published_config()))
    return folder
