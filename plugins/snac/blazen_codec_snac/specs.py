"""The published SNAC models and the embedded one, as data."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


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

    @property
    def hop_length(self) -> int:
        """Samples a latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def padding_frames(self) -> int:
        """The signal is padded to a multiple of this many latent frames."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


TINY = SnacArchitecture(
    sampling_rate=24_000,
    encoder_dim=16,
    encoder_rates=(3, 4, 4, 5),
    decoder_dim=320,
    decoder_rates=(5, 4, 4, 3),
    attn_window_size=None,
    codebook_size=1024,
    vq_strides=(4, 2, 1, 1),
)
