"""The published SNAC models and the embedded one, as data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.architectures import ConvCodecArchitecture, Names, Rates, Width
from blazen_codec_core.specs import LAYERS

Strides = Annotated[tuple[Annotated[int, Field(gt=0, le=1 << 12)], ...], Field(min_length=1, max_length=1024)]
HEAD_CHANNELS = 64
LONGEST_BLOCK = 1 << 22
"""Largest padding unit in samples; larger settings would exhaust memory."""


class SnacArchitecture(ConvCodecArchitecture):
    """Settings of a model, with the names of a published `config.json` and the defaults of the authors' package."""

    model_types: ClassVar[Collection[str]] = ("snac",)

    sampling_rate: int = Field(default=44_100, ge=1000, le=1_000_000)
    encoder_dim: Width = 64
    encoder_rates: Rates = (3, 3, 7, 7)
    latent_dim: Width | None = None
    decoder_dim: Width = 1536
    decoder_rates: Rates = (7, 7, 3, 3)
    attn_window_size: Annotated[int, Field(gt=0, le=1 << 12)] | None = 32
    codebook_size: int = Field(default=4096, gt=1, le=1 << 24)
    codebook_dim: Width = 8
    vq_strides: Strides = (8, 4, 2, 1)
    noise: bool = True
    depthwise: bool = True

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        """Add the attention setting that early configs omit, inferred from the tensors' names."""
        if "attn_window_size" in described:
            return described
        without = {**described, "attn_window_size": None}
        cls.model_validate(without)  # validate before the weights are read
        return described if any(".to_qkv." in name for name in names()) else without

    @model_validator(mode="after")
    def _whole(self) -> SnacArchitecture:
        """Check that settings are consistent, and derive the latent size from the encoder."""
        self.check_rates()
        wide = self.encoder_channels
        if self.latent_dim not in (None, wide):
            raise ValueError(f"latent_dim is {self.latent_dim}; expected {wide}, the channels of the encoder")
        if self.attn_window_size and (wide % HEAD_CHANNELS or self.decoder_dim % HEAD_CHANNELS):
            raise ValueError(f"attention needs a multiple of {HEAD_CHANNELS} channels; these are {wide} and {self.decoder_dim}")
        if any(self.vq_strides[0] % stride for stride in self.vq_strides):
            raise ValueError(f"vq_strides are {self.vq_strides}; expected divisors of the first")
        if self.padding_frames * self.hop_length > LONGEST_BLOCK:
            raise ValueError(
                f"attn_window_size {self.attn_window_size}, vq_strides {self.vq_strides} and encoder_rates {self.encoder_rates} "
                f"pad audio to a multiple of more than {LONGEST_BLOCK} samples"
            )
        object.__setattr__(self, "latent_dim", wide)
        return self

    @property
    def padding_frames(self) -> int:
        """Number of latent frames to a multiple of which signals are padded."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


class SnacSpec(CodecSpec):
    """A SNAC model with its architecture."""

    architecture: SnacArchitecture


PUBLISHED = "https://github.com/hubertsiuzdak/snac"


def _spec(name: str, architecture: SnacArchitecture, **fields: Any) -> SnacSpec:
    """Make a spec with the fields that follow from the architecture."""
    return SnacSpec(
        api_version=1,
        name=name,
        family="snac",
        backend="blazen_codec_snac.backend:SnacBackend",
        upstream="blazen_codec_snac.upstream:UpstreamSnacBackend",
        sample_rate=architecture.sampling_rate,
        hop_length=architecture.hop_length,
        strides=architecture.vq_strides,
        latent_channels=architecture.latent_channels,
        codebook_size=architecture.codebook_size,
        block_frames=architecture.padding_frames,
        capabilities=LAYERS,
        architecture=architecture,
        **{"license": "MIT", **fields},
    )


def _published(name: str, description: str, architecture: SnacArchitecture, commit: str, **fields: Any) -> SnacSpec:
    """Make the spec of a published model.

    Args:
        commit: Commit of the repository, which pins its pickles.
    """
    repo, sha256 = f"hubertsiuzdak/{name}", fields.pop("sha256", None)
    weights = WeightSource(repo=repo, revision=commit, file="pytorch_model.bin", config_file="config.json", sha256=sha256)
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
    _published(
        "snac_24khz",
        "Speech at 24 kHz",
        SNAC_24KHZ,
        "d73ad176a12188fcf4f360ba3bf2c2fbbe8f58ec",
        sha256="4b8164cc6606bfa627f1a784734c1e539891518f1191ed9194fe1e3b9b4bff40",
        tile_frames=24,
        default=True,
    ),
    _published("snac_32khz", "Music and sound at 32 kHz", SNAC_32KHZ, "c84c6ac842dc7a44a6fb0f3b576ce94b48a7780f"),
    _published("snac_44khz", "Music and sound at 44.1 kHz", SNAC_44KHZ, "873ebef9718b89660340c6f55a2b515e98cfa1d9"),
    _spec(
        "snac_tiny",
        SNAC_TINY,
        description="A small model that ships with the plugin",
        weights=WeightSource(package="blazen_codec_snac", file="tiny.safetensors"),
        tile_frames=64,
    ),
)


def custom(architecture: SnacArchitecture, **fields: Any) -> SnacSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    tile = architecture.tile_frames(architecture.sampling_rate, architecture.padding_frames)
    return _spec(architecture=architecture, tile_frames=tile, **fields)
