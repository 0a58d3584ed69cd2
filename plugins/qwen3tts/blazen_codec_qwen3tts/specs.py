"""The published Qwen3-TTS-Tokenizer-12Hz, as data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.architectures import MAX_WIDTH, Architecture, Names, Rates, Width, check_hop
from blazen_codec_core.architectures.seanet_transformer import (
    LONGEST_CONTEXT,
    Count,
    SeanetTransformerArchitecture,
    check_heads,
    with_rotary_base,
)
from blazen_codec_core.specs import LAYERS


class EncoderArchitecture(SeanetTransformerArchitecture):
    """Settings of the encoder: those of a Mimi."""

    model_types: ClassVar[Collection[str]] = ("mimi",)


class DecoderArchitecture(Architecture):
    """Settings of the decoder, with the names of a published `decoder_config` and its values as defaults."""

    model_types: ClassVar[Collection[str]] = ("",)
    silent: ClassVar[frozenset[str]] = frozenset(
        {
            "attention_dropout",
            "initializer_range",
            "max_position_embeddings",
            "num_semantic_quantizers",
            "rope_parameters",
            "rope_scaling",
            "semantic_codebook_size",
            "vector_quantization_hidden_dimension",
        }
    )

    codebook_size: int = Field(default=2048, gt=1, le=1 << 24)
    codebook_dim: Width = 512
    num_quantizers: Count = 16
    latent_dim: Width = 1024
    hidden_size: Width = 512
    num_hidden_layers: int = Field(default=8, ge=0, le=256)
    num_attention_heads: Count = 16
    num_key_value_heads: Count = 16
    head_dim: Width | None = 64
    intermediate_size: Width = 1024
    hidden_act: Literal["gelu", "silu"] = "silu"
    attention_bias: Literal[False] = False
    rms_norm_eps: float = Field(default=1e-5, gt=0, le=1)
    layer_scale_initial_scale: float = Field(default=0.01, gt=0, le=1000)
    rope_theta: float = Field(default=10_000.0, gt=1, le=1e12)
    sliding_window: int = Field(default=72, gt=0, le=LONGEST_CONTEXT)
    upsampling_ratios: Rates = (2, 2)
    upsample_rates: Rates = (8, 5, 4, 3)
    decoder_dim: Width = 1536

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        if described.get("rope_scaling") is not None:
            raise ValueError(f"rope_scaling is {described['rope_scaling']!r:.100}; expected null")
        return {"head_dim": None, **with_rotary_base(described)}

    @model_validator(mode="after")
    def _sizes(self) -> DecoderArchitecture:
        wide = self.head_dim or self.hidden_size // self.num_attention_heads
        check_heads(self.num_attention_heads, self.num_key_value_heads, wide)
        object.__setattr__(self, "head_dim", wide)
        if self.codebook_dim % 2 or self.num_quantizers < 2:
            raise ValueError(
                f"codebook_dim is {self.codebook_dim} and num_quantizers {self.num_quantizers}; expected an even number, and at "
                "least 2"
            )
        if self.decoder_dim % (1 << len(self.upsample_rates)):
            raise ValueError(f"decoder_dim {self.decoder_dim} cannot be halved at each of upsample_rates {self.upsample_rates}")
        if self.latent_dim > MAX_WIDTH // 4:
            raise ValueError(f"latent_dim is {self.latent_dim}; expected at most {MAX_WIDTH // 4}")
        return self

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)


class Qwen3TtsArchitecture(Architecture):
    """Settings of a model, with the names and defaults of a published `config.json`."""

    model_types: ClassVar[Collection[str]] = ("qwen3_tts_tokenizer_12hz",)

    encoder_config: EncoderArchitecture = EncoderArchitecture()
    decoder_config: DecoderArchitecture = DecoderArchitecture()
    encoder_valid_num_quantizers: Count = 16
    input_sample_rate: int = Field(default=24_000, ge=1000, le=1_000_000)
    output_sample_rate: int = Field(default=24_000, ge=1000, le=1_000_000)
    encode_downsample_rate: int = 1920
    decode_upsample_rate: int = 1920

    @classmethod
    def read(cls, described: Any, origin: str, name: str, names: Names = tuple) -> Self:
        if isinstance(described, Mapping):
            parts: dict[str, type[Architecture]] = {"encoder_config": EncoderArchitecture, "decoder_config": DecoderArchitecture}
            read = {
                part: kind.read(described[part], f"{part} of {origin}", name, names)
                for part, kind in parts.items()
                if isinstance(described.get(part), Mapping)
            }
            described = {**described, **read}
        return super().read(described, origin, name, names)

    @model_validator(mode="after")
    def _agreement(self) -> Qwen3TtsArchitecture:
        encoder, decoder, count = self.encoder_config, self.decoder_config, self.encoder_valid_num_quantizers
        if encoder.num_quantizers < count:
            raise ValueError(f"encoder_valid_num_quantizers is {count}; the encoder has {encoder.num_quantizers} codebooks")
        used = EncoderArchitecture(**{**encoder.model_dump(), "num_quantizers": count})  # the others are never searched
        object.__setattr__(self, "encoder_config", used)
        for what, ours, theirs in (
            ("codebooks", count, decoder.num_quantizers),
            ("entries a codebook", encoder.codebook_size, decoder.codebook_size),
            ("channels of the latent", encoder.hidden_size, decoder.codebook_dim),
            ("samples a frame", encoder.hop_length, decoder.hop_length),
        ):
            if ours != theirs:
                raise ValueError(f"the encoder has {ours} {what}; expected {theirs}, as the decoder")
        hop, rate = encoder.hop_length, encoder.sampling_rate
        if (self.encode_downsample_rate, self.decode_upsample_rate) != (hop, hop):
            raise ValueError(
                f"encode_downsample_rate is {self.encode_downsample_rate} and decode_upsample_rate {self.decode_upsample_rate}; "
                f"expected {hop}, the samples of a frame"
            )
        if (self.input_sample_rate, self.output_sample_rate) != (rate, rate):
            raise ValueError(
                f"input_sample_rate is {self.input_sample_rate} and output_sample_rate {self.output_sample_rate}; expected "
                f"{rate}, the encoder's sampling_rate"
            )
        check_hop(hop, f"upsampling_ratios {decoder.upsampling_ratios} and upsample_rates {decoder.upsample_rates}")
        return self


class Qwen3TtsSpec(CodecSpec):
    """A Qwen3-TTS tokenizer with its architecture."""

    architecture: Qwen3TtsArchitecture


def _spec(name: str, architecture: Qwen3TtsArchitecture, **fields: Any) -> Qwen3TtsSpec:
    """Make a spec with the fields that follow from the architecture."""
    encoder = architecture.encoder_config
    return Qwen3TtsSpec(
        api_version=1,
        name=name,
        family="qwen3tts",
        backend="blazen_codec_qwen3tts.backend:Qwen3TtsBackend",
        upstream="blazen_codec_qwen3tts.upstream:UpstreamQwen3TtsBackend",
        sample_rate=encoder.sampling_rate,
        hop_length=encoder.hop_length,
        strides=(1,) * encoder.num_quantizers,
        latent_channels=encoder.hidden_size,
        codebook_size=encoder.codebook_size,
        block_frames=1,
        padded=False,
        tile_frames=encoder.tile_frames,
        capabilities=LAYERS,
        architecture=architecture,
        **fields,
    )


SPECS = (
    _spec(
        "qwen3tts_12hz",
        Qwen3TtsArchitecture(),
        description="Speech at 24 kHz in 12.5 frames a second, causal, as Qwen3-TTS speaks",
        aliases=("Qwen/Qwen3-TTS-Tokenizer-12Hz",),
        default=True,
        weights=WeightSource(
            repo="Qwen/Qwen3-TTS-Tokenizer-12Hz",
            revision="7dd38ad4e9bad454aae9cd937d0cd577604fe229",
            file="model.safetensors",
            config_file="config.json",
        ),
        license="Apache 2.0",
        homepage="https://github.com/QwenLM/Qwen3-TTS",
    ),
)


def custom(architecture: Qwen3TtsArchitecture, **fields: Any) -> Qwen3TtsSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    return _spec(architecture=architecture, **fields)
