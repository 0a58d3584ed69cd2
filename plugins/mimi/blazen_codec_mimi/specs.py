"""The published Mimi model and the embedded one, as data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.architectures.seanet_transformer import SeanetTransformerArchitecture
from blazen_codec_core.specs import LAYERS


class MimiArchitecture(SeanetTransformerArchitecture):
    """Settings of a Mimi."""

    model_types: ClassVar[Collection[str]] = ("mimi",)


class MimiSpec(CodecSpec):
    """A Mimi model with its architecture."""

    architecture: MimiArchitecture


MIMI_TINY = MimiArchitecture(
    num_filters=10,
    hidden_size=128,
    upsample_groups=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    intermediate_size=320,
    layer_scale_initial_scale=0.1,
    sliding_window=50,
    codebook_size=512,
    codebook_dim=64,
    vector_quantization_hidden_dimension=64,
    num_quantizers=16,
)
MOSHI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
"""The same weights in the authors' own layout, as in the repositories of their language models."""


def _spec(name: str, architecture: MimiArchitecture, **fields: Any) -> MimiSpec:
    """Make a spec with the fields that follow from the architecture."""
    a = architecture
    return MimiSpec(
        api_version=1,
        name=name,
        family="mimi",
        backend="blazen_codec_mimi.backend:MimiBackend",
        upstream="blazen_codec_mimi.upstream:UpstreamMimiBackend",
        sample_rate=a.sampling_rate,
        hop_length=a.hop_length,
        strides=(1,) * a.num_quantizers,
        latent_channels=a.hidden_size,
        codebook_size=a.codebook_size,
        codebook_choices=tuple(range(a.num_semantic_quantizers, a.num_quantizers + 1)),
        block_frames=1,
        tile_frames=a.tile_frames,
        file_names=(MOSHI_FILE,),
        capabilities=LAYERS,
        architecture=a,
        **{"default_codebooks": max(a.num_semantic_quantizers, min(8, a.num_quantizers)), **fields},
    )


SPECS = (
    _spec(
        "mimi",
        MimiArchitecture(),
        description="Speech at 24 kHz in 12.5 frames a second, causal",
        aliases=("kyutai/mimi",),
        default=True,
        weights=WeightSource(
            repo="kyutai/mimi",
            revision="89091b3e466eb6a9d11e537bf26b144f194978f7",
            file="model.safetensors",
            config_file="config.json",
        ),
        license="CC BY 4.0",
        homepage="https://github.com/kyutai-labs/moshi",
    ),
    _spec(
        "mimi_tiny",
        MIMI_TINY,
        description="A small model that ships with the plugin",
        default_codebooks=MIMI_TINY.num_quantizers,
        weights=WeightSource(package="blazen_codec_mimi", file="tiny.safetensors"),
        license="MIT",
    ),
)


def custom(architecture: MimiArchitecture, **fields: Any) -> MimiSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    return _spec(architecture=architecture, **fields)
