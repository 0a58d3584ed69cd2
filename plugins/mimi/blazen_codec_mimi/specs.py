"""The published Mimi model, as data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.architectures import MAX_WIDTH, Architecture, Names, Rates, Width, check_hop
from blazen_codec_core.specs import LAYERS

Taps = Annotated[int, Field(gt=0, le=1 << 12)]
Count = Annotated[int, Field(gt=0, le=1024)]
LONGEST_CONTEXT = 1 << 14
"""Most positions that attention may see; larger settings would exhaust memory."""


class MimiArchitecture(Architecture):
    """Settings of a model, with the names and defaults of a published `config.json`."""

    model_types: ClassVar[Collection[str]] = ("mimi",)
    silent: ClassVar[frozenset[str]] = frozenset(
        {
            "attention_dropout",
            "initializer_range",
            "max_position_embeddings",
            "normalize",
            "rope_parameters",
            "use_streaming",
            "_frame_rate",
        }
    )

    sampling_rate: int = Field(default=24_000, ge=1000, le=1_000_000)
    frame_rate: float = Field(default=12.5, gt=0, le=100_000)
    audio_channels: Literal[1] = 1
    num_filters: Width = 64
    num_residual_layers: int = Field(default=1, ge=0, le=64)
    upsampling_ratios: Rates = (8, 6, 5, 4)
    kernel_size: Taps = 7
    last_kernel_size: Taps = 3
    residual_kernel_size: Taps = 3
    dilation_growth_rate: int = Field(default=2, gt=0, le=64)
    compress: int = Field(default=2, gt=0, le=MAX_WIDTH)
    use_conv_shortcut: bool = False
    use_causal_conv: Literal[True] = True
    pad_mode: Literal["constant"] = "constant"
    trim_right_ratio: float = Field(default=1.0, ge=1, le=1)
    hidden_size: Width = 512
    num_hidden_layers: int = Field(default=8, ge=0, le=256)
    num_attention_heads: Count = 8
    num_key_value_heads: Count = 8
    head_dim: Width | None = None
    intermediate_size: Width = 2048
    hidden_act: Literal["gelu", "silu"] = "gelu"
    attention_bias: bool = False
    norm_eps: float = Field(default=1e-5, gt=0, le=1)
    layer_scale_initial_scale: float = Field(default=0.01, gt=0, le=1000)
    rope_theta: float = Field(default=10_000.0, gt=1, le=1e12)
    sliding_window: int = Field(default=250, gt=0, le=LONGEST_CONTEXT)
    upsample_groups: int = Field(default=512, gt=0, le=MAX_WIDTH)
    codebook_size: int = Field(default=2048, gt=1, le=1 << 24)
    codebook_dim: Width = 256
    vector_quantization_hidden_dimension: Width = 256
    num_quantizers: Count = 32
    num_semantic_quantizers: Count = 1

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        """Take the base of the rotary positions from where newer configs have it, and leave out empty settings."""
        rotary = described.get("rope_parameters")
        if isinstance(rotary, Mapping):
            if rotary.get("rope_type", "default") != "default":
                raise ValueError(f"rope_type is {rotary['rope_type']!r:.100}; expected 'default'")
            described = {"rope_theta": rotary.get("rope_theta", 10_000.0), **described}
        return {name: value for name, value in described.items() if value is not None}

    @model_validator(mode="after")
    def _rates(self) -> MimiArchitecture:
        fast = self.sampling_rate / math.prod(self.upsampling_ratios)
        if self.latent_stride < 2 or not math.isclose(fast, self.frame_rate * self.latent_stride):
            raise ValueError(
                f"frame_rate is {self.frame_rate}; expected {fast:g}, the rate after upsampling_ratios {self.upsampling_ratios}, "
                "divided by a whole number from 2"
            )
        check_hop(self.hop_length, f"upsampling_ratios {self.upsampling_ratios} and frame_rate {self.frame_rate}")
        if self.num_filters << len(self.upsampling_ratios) > MAX_WIDTH:
            raise ValueError(
                f"num_filters {self.num_filters}, doubled at each of {self.upsampling_ratios}, exceeds {MAX_WIDTH} channels"
            )
        if self.num_filters % self.compress:
            raise ValueError(f"compress is {self.compress}; expected a divisor of num_filters {self.num_filters}")
        if self.upsample_groups != self.hidden_size:
            raise ValueError(f"upsample_groups is {self.upsample_groups}; expected {self.hidden_size}, the hidden_size")
        return self

    @model_validator(mode="after")
    def _heads(self) -> MimiArchitecture:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must divide hidden_size {self.hidden_size}, and be a "
                f"multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        wide = self.head_dim or self.hidden_size // self.num_attention_heads
        if wide % 2 or self.num_attention_heads * wide > MAX_WIDTH:
            raise ValueError(f"head_dim is {wide}; expected an even number, and at most {MAX_WIDTH} channels in all")
        object.__setattr__(self, "head_dim", wide)
        return self

    @model_validator(mode="after")
    def _codes(self) -> MimiArchitecture:
        if self.num_semantic_quantizers >= self.num_quantizers:
            raise ValueError(
                f"num_semantic_quantizers is {self.num_semantic_quantizers}; expected less than {self.num_quantizers}, the "
                "num_quantizers"
            )
        if self.codebook_dim != self.vector_quantization_hidden_dimension:
            raise ValueError(
                f"codebook_dim is {self.codebook_dim}; expected {self.vector_quantization_hidden_dimension}, the "
                "vector_quantization_hidden_dimension"
            )
        if self.codebook_dim == self.hidden_size:
            raise ValueError(f"codebook_dim is {self.codebook_dim}, the hidden_size; expected a number that needs projections")
        return self

    @property
    def latent_stride(self) -> int:
        """Positions of the transformers for each frame of tokens."""
        return round(self.sampling_rate / math.prod(self.upsampling_ratios) / self.frame_rate)

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsampling_ratios) * self.latent_stride


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
"""A small model; `training` trains it."""

MOSHI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
"""The same weights in the authors' own layout, as in the repositories of their language models."""
TILE_SECONDS = 2.0


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
        default_codebooks=max(a.num_semantic_quantizers, min(8, a.num_quantizers)),
        block_frames=1,
        tile_frames=max(1, round(TILE_SECONDS * a.frame_rate)),
        file_names=(MOSHI_FILE,),
        capabilities=LAYERS,
        architecture=a,
        **fields,
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
)


def custom(architecture: MimiArchitecture, **fields: Any) -> MimiSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    return _spec(architecture=architecture, **fields)
