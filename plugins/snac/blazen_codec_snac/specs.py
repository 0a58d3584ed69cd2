"""The published SNAC models and the embedded one, as data."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.specs import LAYERS


class SnacArchitecture(BaseModel):
    """What a published `config.json` says; the names are its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sampling_rate: int = Field(gt=0)
    encoder_dim: int = Field(gt=0)
    encoder_rates: tuple[int, ...]
    latent_dim: int | None = None
    decoder_dim: int = Field(gt=0)
    decoder_rates: tuple[int, ...]
    attn_window_size: int | None
    codebook_size: int = Field(default=4096, gt=0)
    codebook_dim: int = Field(default=8, gt=0)
    vq_strides: tuple[int, ...]
    noise: bool = True
    depthwise: bool = True

    @property
    def latent_channels(self) -> int:
        return self.latent_dim or self.encoder_dim * 2 ** len(self.encoder_rates)

    @model_validator(mode="after")
    def _latent(self) -> SnacArchitecture:
        """Where a config leaves the latent to follow from the encoder, it is as if it said so."""
        object.__setattr__(self, "latent_dim", self.latent_channels)
        return self

    @property
    def hop_length(self) -> int:
        """Samples a latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def padding_frames(self) -> int:
        """The signal is padded to a multiple of this many latent frames."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


class SnacSpec(CodecSpec):
    """A SNAC model with its architecture."""

    architecture: SnacArchitecture


PUBLISHED = "https://github.com/hubertsiuzdak/snac"


def _spec(name: str, architecture: SnacArchitecture, **fields: Any) -> SnacSpec:
    """A row of the table below, with what follows from the architecture filled in."""
    return SnacSpec(
        api_version=1,
        name=name,
        family="snac",
        backend="blazen_codec_snac.backend:SnacBackend",
        upstream="blazen_codec_snac.upstream:UpstreamSnacBackend",
        sample_rate=architecture.sampling_rate,
        hop_length=architecture.hop_length,
        strides=architecture.vq_strides,
        codebook_size=architecture.codebook_size,
        block_frames=architecture.padding_frames,
        licence="MIT",
        capabilities=LAYERS,
        architecture=architecture,
        **fields,
    )


def _published(name: str, description: str, architecture: SnacArchitecture, **fields: Any) -> SnacSpec:
    repo = f"hubertsiuzdak/{name}"
    weights = WeightSource(repo=repo, file="pytorch_model.bin", config_file="config.json")
    return _spec(
        name,
        architecture,
        description=description,
        aliases=(repo,),
        weights=weights,
        homepage=PUBLISHED,
        **{"tile_frames": 32, **fields},
    )


SNAC_24KHZ = SnacArchitecture(
    sampling_rate=24_000,
    encoder_dim=48,
    encoder_rates=(2, 4, 8, 8),
    decoder_dim=1024,
    decoder_rates=(8, 8, 4, 2),
    attn_window_size=None,
    vq_strides=(4, 2, 1),
)
SNAC_32KHZ = SnacArchitecture(
    sampling_rate=32_000,
    encoder_dim=64,
    encoder_rates=(2, 3, 8, 8),
    decoder_dim=1536,
    decoder_rates=(8, 8, 3, 2),
    attn_window_size=32,
    vq_strides=(8, 4, 2, 1),
)
SNAC_44KHZ = SNAC_32KHZ.model_copy(update={"sampling_rate": 44_100})
SNAC_TINY = SnacArchitecture(
    sampling_rate=24_000,
    encoder_dim=16,
    encoder_rates=(3, 4, 4, 5),
    decoder_dim=320,
    decoder_rates=(5, 4, 4, 3),
    attn_window_size=None,
    codebook_size=1024,
    vq_strides=(4, 2, 1, 1),
)

SPECS = (
    _published("snac_24khz", "Speech at 24 kHz", SNAC_24KHZ, tile_frames=24, default=True),
    _published("snac_32khz", "Music and sound at 32 kHz", SNAC_32KHZ),
    _published("snac_44khz", "Music and sound at 44.1 kHz", SNAC_44KHZ),
    _spec(
        "snac_tiny",
        SNAC_TINY,
        description="A small model that ships with the plugin",
        weights=WeightSource(package="blazen_codec_snac", file="tiny.safetensors"),
        tile_frames=64,
    ),
)
