"""The published DAC models and the embedded one, as data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field, model_validator

from blazen_codec_core import CodecSpec, WeightSource
from blazen_codec_core.architectures import ConvCodecArchitecture, Names, Rates, Width
from blazen_codec_core.specs import LAYERS

DILATIONS = (1, 3, 9)
KERNEL = 7

HUB = {
    "sample_rate": "sampling_rate",
    "encoder_dim": "encoder_hidden_size",
    "encoder_rates": "downsampling_ratios",
    "latent_dim": "hidden_size",
    "decoder_dim": "decoder_hidden_size",
    "decoder_rates": "upsampling_ratios",
    "n_codebooks": "num_codebooks",
}
"""Names of settings in the authors' checkpoints, with those in the Hub's configs, including Parler's `num_codebooks`."""
HUB_RATE = 16_000
"""Default sample rate of configs for transformers, in Hz."""


def _named(authors: str, **fields: Any) -> Any:
    """Field with its names in the authors' checkpoints and the Hub's configs."""
    return Field(validation_alias=AliasChoices(authors, HUB[authors]), **fields)


class DacArchitecture(ConvCodecArchitecture):
    """Settings of a model, with the names and defaults of the authors' checkpoints."""

    model_types: ClassVar[Collection[str]] = ("dac", "dac_on_the_hub")
    silent: ClassVar[frozenset[str]] = frozenset(
        {
            "quantizer_dropout",
            "commitment_loss_weight",
            "codebook_loss_weight",
            "hop_length",
            "frame_rate",
            "model_bitrate",
        }
    )

    sample_rate: int = _named("sample_rate", default=44_100, ge=1000, le=1_000_000)
    encoder_dim: Width = _named("encoder_dim", default=64)
    encoder_rates: Rates = _named("encoder_rates", default=(2, 4, 8, 8))
    latent_dim: Width | None = _named("latent_dim", default=None)
    decoder_dim: Width = _named("decoder_dim", default=1536)
    decoder_rates: Rates = _named("decoder_rates", default=(8, 8, 4, 2))
    n_codebooks: int = _named("n_codebooks", default=9, gt=0, le=1024)
    codebook_size: int = Field(default=1024, gt=1, le=1 << 24)
    codebook_dim: Width | tuple[Width, ...] = 8

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        """Add derived settings to a config; if it already has them, they must agree."""
        settings = dict(described)
        for authors, hub in HUB.items():
            if authors not in settings or hub not in settings:
                continue
            if settings[authors] is None:
                del settings[authors]
            elif settings[hub] not in (None, settings[authors]):
                raise ValueError(
                    f"{authors} is {settings[authors]!r:.100}, but {hub}, another name of it, is {settings[hub]!r:.100}. "
                    "Remove the wrong one"
                )
        rates = settings.get("downsampling_ratios", settings.get("encoder_rates", (2, 4, 8, 8)))
        if isinstance(rates, list | tuple) and all(isinstance(rate, int) for rate in rates):
            if not settings.keys() & {"decoder_rates", "upsampling_ratios"}:
                settings["decoder_rates"] = tuple(reversed(rates))
            if settings.get("hop_length") not in (None, math.prod(rates)):
                raise ValueError(f"hop_length is {settings['hop_length']!r}; expected the product of {tuple(rates)}")
        if settings.get("model_type") == "dac" and "model_bitrate" not in settings:  # of transformers, not Parler's
            settings.setdefault("sampling_rate", HUB_RATE)
        return settings

    @model_validator(mode="after")
    def _whole(self) -> DacArchitecture:
        """Check that settings are consistent, and derive the latent size from the encoder.

        Convert a list of equal codebook sizes to one size.
        """
        self.check_rates()
        if isinstance(self.codebook_dim, tuple):
            if len(self.codebook_dim) != self.n_codebooks:
                raise ValueError(
                    f"codebook_dim has {len(self.codebook_dim)} sizes; expected one for each of {self.n_codebooks} codebooks"
                )
            if len(set(self.codebook_dim)) == 1:
                object.__setattr__(self, "codebook_dim", self.codebook_dim[0])
        object.__setattr__(self, "latent_dim", self.latent_channels)
        return self

    @property
    def code_channels(self) -> tuple[int, ...]:
        """Dimension of each codebook."""
        sizes = self.codebook_dim
        return sizes if isinstance(sizes, tuple) else (sizes,) * self.n_codebooks

    def window_samples(self, frames: int, *, padded: bool) -> int:
        """Return the number of samples that the decoder yields for `frames` frames.

        With padding, a transposed convolution of odd stride yields one sample less. Without padding, the result may be 0 or
        negative, which means no samples.
        """
        if padded:
            for stride in self.decoder_rates:
                frames = frames * stride - stride % 2
            return frames
        reach = KERNEL - 1
        frames -= reach
        for stride in self.decoder_rates:
            frames = (frames + 1) * stride - reach * sum(DILATIONS)
        return frames - reach

    @property
    def missing_samples(self) -> int:
        """Number of samples that the decoder is short of whole frames."""
        return self.hop_length - self.window_samples(1, padded=True)


class DacSpec(CodecSpec):
    """A DAC model with its architecture."""

    architecture: DacArchitecture


FILE_NAMES = ("weights.pth", "dac/weights.pth")
"""File names of the authors' trainer."""
RELEASES = "https://github.com/descriptinc/descript-audio-codec/releases/download/"
WINDOW_FRAMES, WINDOW_PADDED = "window_frames", "window_padded"
"""Token extras for windows of the authors' tool: frames per window, and whether each window was padded."""


def _spec(name: str, architecture: DacArchitecture, **fields: Any) -> DacSpec:
    """Make a spec with the fields that follow from the architecture."""
    a = architecture
    return DacSpec(
        api_version=1,
        name=name,
        family="dac",
        backend="blazen_codec_dac.backend:DacBackend",
        upstream="blazen_codec_dac.upstream:UpstreamDacBackend",
        sample_rate=a.sample_rate,
        hop_length=a.hop_length,
        strides=(1,) * a.n_codebooks,
        latent_channels=a.latent_channels,
        codebook_size=a.codebook_size,
        codebook_choices=tuple(range(1, a.n_codebooks + 1)),
        block_frames=1,
        token_extras=(WINDOW_FRAMES, WINDOW_PADDED),
        capabilities=LAYERS,
        architecture=a,
        file_names=FILE_NAMES,
        **{"license": "MIT", **fields},
    )


def _published(
    name: str, architecture: DacArchitecture, file: str, tag: str, kind: str, *, hub: str | None, **fields: Any
) -> DacSpec:
    """Make the spec of a published model.

    Args:
        tag: Tag of the release with the file.
        kind: Model name in the authors' cached file.
        hub: Commit of the Hub repository that has it as safetensors; `None` if there is none.
    """
    repo = f"descript/{name}"
    return _spec(
        name,
        architecture,
        aliases=(repo,) if hub else (),
        weights=WeightSource(url=f"{RELEASES}{tag}/", file=file, caches=(f"~/.cache/descript/dac/weights_{kind}_{tag}.pth",)),
        mirrors=(WeightSource(repo=repo, revision=hub, file="model.safetensors", config_file="config.json"),) if hub else (),
        homepage="https://github.com/descriptinc/descript-audio-codec",
        **fields,
    )


DAC_44KHZ = DacArchitecture(
    sample_rate=44_100,
    encoder_dim=64,
    encoder_rates=(2, 4, 8, 8),
    decoder_dim=1536,
    decoder_rates=(8, 8, 4, 2),
    n_codebooks=9,
)
DAC_44KHZ_16KBPS = DAC_44KHZ.model_copy(update={"n_codebooks": 18, "latent_dim": 128})
DAC_24KHZ = DacArchitecture(
    sample_rate=24_000,
    encoder_dim=64,
    encoder_rates=(2, 4, 5, 8),
    decoder_dim=1536,
    decoder_rates=(8, 5, 4, 2),
    n_codebooks=32,
)
DAC_16KHZ = DAC_24KHZ.model_copy(update={"sample_rate": 16_000, "n_codebooks": 12})
DAC_TINY = DacArchitecture(
    sample_rate=24_000,
    encoder_dim=12,
    encoder_rates=(4, 4, 4, 5),
    latent_dim=96,
    decoder_dim=192,
    decoder_rates=(5, 4, 4, 4),
    n_codebooks=8,
)

AUTHORS = (
    _published(
        "dac_44khz",
        DAC_44KHZ,
        "weights.pth",
        "0.0.1",
        "44khz_8kbps",
        hub="c1bc521685adf9cfe247bc39a5ca58917eda1ac4",
        description="Speech, music and sound at 44.1 kHz",
        default=True,
        tile_frames=32,
    ),
    _published(
        "dac_44khz_16kbps",
        DAC_44KHZ_16KBPS,
        "weights_44khz_16kbps.pth",
        "1.0.0",
        "44khz_16kbps",
        hub=None,
        description="Speech, music and sound at 44.1 kHz, twice the bandwidth",
        tile_frames=32,
    ),
    _published(
        "dac_24khz",
        DAC_24KHZ,
        "weights_24khz.pth",
        "0.0.4",
        "24khz_8kbps",
        hub="6ba020b5ba7d9d8076fb90db7e67f27e31980f6e",
        description="Speech, music and sound at 24 kHz",
        tile_frames=50,
    ),
    _published(
        "dac_16khz",
        DAC_16KHZ,
        "weights_16khz.pth",
        "0.0.5",
        "16khz_8kbps",
        hub="7c2fc5e759f1f501aefc6e7a0265cc57f5d17ba7",
        description="Speech at 16 kHz",
        tile_frames=50,
    ),
)
"""The published models, which the authors' file format supports."""

SPECS = (
    *AUTHORS,
    _spec(
        "dac_tiny",
        DAC_TINY,
        description="A small model that ships with the plugin",
        weights=WeightSource(package="blazen_codec_dac", file="tiny.safetensors"),
        tile_frames=64,
    ),
)


def custom(architecture: DacArchitecture, **fields: Any) -> DacSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    return _spec(architecture=architecture, tile_frames=architecture.tile_frames(architecture.sample_rate), **fields)
