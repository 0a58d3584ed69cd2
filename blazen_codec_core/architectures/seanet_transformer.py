"""Settings of causal codecs of SEANet convolutions and transformers, in the words of transformers' `MimiConfig`.

Source: Défossez et al. 2024, "Moshi: a speech-text foundation model for real-time dialogue".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from . import MAX_WIDTH, Architecture, Names, Rates, Width, check_hop

Taps = Annotated[int, Field(gt=0, le=1 << 12)]
Count = Annotated[int, Field(gt=0, le=1024)]
LONGEST_CONTEXT = 1 << 14
"""Most positions that attention may see; larger settings would exhaust memory."""
TILE_SECONDS = 4.0
"""Seconds of a tile: each reads the weights of all transformer layers."""


class SeanetTransformerArchitecture(Architecture):
    """Settings of a model, with the names and defaults of a published `config.json`."""

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
        return with_rotary_base(described)

    @model_validator(mode="after")
    def _rates(self) -> SeanetTransformerArchitecture:
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
    def _heads(self) -> SeanetTransformerArchitecture:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} must divide hidden_size {self.hidden_size}")
        wide = self.head_dim or self.hidden_size // self.num_attention_heads
        check_heads(self.num_attention_heads, self.num_key_value_heads, wide)
        object.__setattr__(self, "head_dim", wide)
        return self

    @model_validator(mode="after")
    def _codes(self) -> SeanetTransformerArchitecture:
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

    @property
    def tile_frames(self) -> int:
        """Frames of a tile of about `TILE_SECONDS`."""
        return max(1, round(TILE_SECONDS * self.frame_rate))


def with_rotary_base(described: Mapping[str, Any]) -> dict[str, Any]:
    """Take the base of the rotary positions from where newer configs have it, and leave out empty settings."""
    rotary = described.get("rope_parameters")
    if isinstance(rotary, Mapping):
        if rotary.get("rope_type", "default") != "default":
            raise ValueError(f"rope_type is {rotary['rope_type']!r:.100}; expected 'default'")
        described = {"rope_theta": rotary.get("rope_theta", 10_000.0), **described}
    return {name: value for name, value in described.items() if value is not None}


def check_heads(heads: int, kv_heads: int, head_dim: int) -> None:
    """Raise `ValueError` unless groups of heads share keys, and heads have pairs of channels for rotary positions."""
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads {heads} must be a multiple of num_key_value_heads {kv_heads}")
    if head_dim % 2 or heads * head_dim > MAX_WIDTH:
        raise ValueError(f"head_dim is {head_dim}; expected an even number, and at most {MAX_WIDTH} channels in all")
