"""A Qwen3-TTS tokenizer with fewer and narrower layers than the published one, in its layout."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core.weights import RandomWeights
from blazen_codec_qwen3tts.backend import Qwen3TtsBackend
from blazen_codec_qwen3tts.specs import SPECS, DecoderArchitecture, EncoderArchitecture, Qwen3TtsArchitecture, custom

NARROW = Qwen3TtsArchitecture(
    encoder_config=EncoderArchitecture(
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
    ),
    decoder_config=DecoderArchitecture(
        codebook_dim=64,
        latent_dim=96,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=80,
        sliding_window=40,
        layer_scale_initial_scale=0.3,
        decoder_dim=64,
    ),
)
"""The rates, strides and codebooks of the published one; layer scales large enough for attention to matter."""
FROM_WEIGHTS = {"architecture": "from-weights", "device": "cpu"}


def write_narrow(folder: Path, seed: int = 0) -> Path:
    """Write random weights and their config to a folder, as the authors do; return it."""
    (published,) = SPECS
    spec = custom(NARROW, name="narrow", description="Narrow", license="MIT", weights=published.weights)
    backend = Qwen3TtsBackend(spec, bc.LoadOptions(device="cpu"))
    save_file(backend.to_published(backend.build(RandomWeights(seed))), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(backend.published_config()))
    return folder
