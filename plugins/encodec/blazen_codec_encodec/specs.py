"""The published EnCodec models and the embedded one, as data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blazen_codec_core import CodecSpec, Segment, WeightSource
from blazen_codec_core.architectures import Architecture, Names, Width, check_hop
from blazen_codec_core.specs import LAYERS

Bandwidth = Annotated[float, Field(allow_inf_nan=False, le=1e9)]
Rates = Annotated[tuple[Annotated[int, Field(gt=0, le=1 << 12)], ...], Field(min_length=1, max_length=12)]


LONGEST_REACH = 1 << 16
"""Limits of the hop in samples and of a convolution's span in frames; larger settings would exhaust memory."""


class EncodecArchitecture(Architecture):
    """Settings of a model, with the names and defaults of a published `config.json`."""

    model_types: ClassVar[Collection[str]] = ("encodec",)
    silent: ClassVar[frozenset[str]] = frozenset({"codebook_dim"})

    sampling_rate: int = Field(default=24_000, ge=1000, le=1_000_000)
    audio_channels: int = Field(default=1, gt=0, le=32)
    num_filters: Width = 32
    upsampling_ratios: Rates = (8, 5, 4, 2)
    hidden_size: Width = 128
    codebook_size: int = Field(default=1024, gt=1, le=1 << 24)
    target_bandwidths: Annotated[tuple[Bandwidth, ...], Field(min_length=1, max_length=1024)] = (1.5, 3.0, 6.0, 12.0, 24.0)
    norm_type: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    use_causal_conv: bool = True
    normalize: bool = False
    chunk_length_s: float | None = Field(default=None, gt=0, le=600)
    overlap: float | None = Field(default=None, ge=0, le=0.5)
    kernel_size: int = Field(default=7, gt=0, le=1 << 12)
    last_kernel_size: int = Field(default=7, gt=0, le=1 << 12)
    residual_kernel_size: int = Field(default=3, gt=0, le=1 << 12)
    num_residual_layers: int = Field(default=1, ge=0, le=64)
    dilation_growth_rate: int = Field(default=2, gt=0, le=64)
    use_conv_shortcut: bool = True
    compress: int = Field(default=2, gt=0)
    num_lstm_layers: int = Field(default=2, ge=0, le=64)
    pad_mode: Literal["reflect", "constant", "replicate"] = "reflect"
    trim_right_ratio: float = Field(default=1.0, ge=0, le=1)

    @classmethod
    def completed(cls, described: Mapping[str, Any], names: Names) -> Mapping[str, Any]:
        """Check derived settings."""
        size, hidden = described.get("codebook_dim"), described.get("hidden_size", 128)
        if size not in (None, hidden):
            raise ValueError(f"codebook_dim is {size!r}; expected {hidden}, the hidden_size")
        return described

    @model_validator(mode="after")
    def _spans(self) -> EncodecArchitecture:
        check_hop(self.hop_length, f"upsampling_ratios {self.upsampling_ratios}")
        if (self.residual_kernel_size - 1) * self.dilation_growth_rate ** max(0, self.num_residual_layers - 1) >= LONGEST_REACH:
            raise ValueError(
                f"residual_kernel_size {self.residual_kernel_size}, dilation_growth_rate {self.dilation_growth_rate} and "
                f"num_residual_layers {self.num_residual_layers} make a convolution span more than {LONGEST_REACH} frames"
            )
        return self

    @model_validator(mode="after")
    def _segments(self) -> EncodecArchitecture:
        if self.chunk_length_s is None:
            return self
        length, stride = self._segment_samples(self.chunk_length_s)
        if length < 1 or length % self.hop_length:
            raise ValueError(
                f"chunk_length_s {self.chunk_length_s} at sampling_rate {self.sampling_rate} gives segments of {length} samples; "
                f"expected whole frames of {self.hop_length} samples"
            )
        if length > 2 * stride:
            raise ValueError(
                f"overlap {self.overlap} with chunk_length_s {self.chunk_length_s} gives segments of {length} samples "
                f"that start every {stride}; at most half of a segment may overlap the next"
            )
        return self

    @model_validator(mode="after")
    def _codes(self) -> EncodecArchitecture:
        if not 0 < min(self.codebook_choices) <= max(self.codebook_choices) <= 1024:
            raise ValueError(
                f"target_bandwidths {self.target_bandwidths} give {self.codebook_choices} codebooks; expected 1 to 1024"
            )
        if self.normalize and self.chunk_length_s is None:
            raise ValueError("normalize requires chunk_length_s, because each segment has its own scale")
        if self.norm_type == "time_group_norm" and (self.use_causal_conv or self.chunk_length_s is None):
            raise ValueError("norm_type time_group_norm requires chunk_length_s and excludes use_causal_conv")
        if self.num_filters * 2 ** len(self.upsampling_ratios) > 1 << 16:
            raise ValueError(
                f"num_filters {self.num_filters}, doubled at each of {self.upsampling_ratios}, exceeds {1 << 16} channels"
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsampling_ratios)

    @property
    def frame_rate(self) -> int:
        """Frames per second."""
        return math.ceil(self.sampling_rate / self.hop_length)

    @property
    def codebook_choices(self) -> tuple[int, ...]:
        """Number of codebooks for each bandwidth."""
        bits = self.frame_rate * math.log2(self.codebook_size)
        return tuple(int(1000 * bandwidth // bits) for bandwidth in self.target_bandwidths)

    @property
    def num_codebooks(self) -> int:
        return max(self.codebook_choices)

    @property
    def tile_frames(self) -> int:
        """Frames per tile: a segment, or about two seconds."""
        if self.segment:
            return self.segment.length // self.hop_length
        return 2 * self.frame_rate

    @property
    def segment(self) -> Segment | None:
        if self.chunk_length_s is None:
            return None
        length, stride = self._segment_samples(self.chunk_length_s)
        return Segment(length=length, stride=stride, normalized=self.normalize)

    def _segment_samples(self, seconds: float) -> tuple[int, int]:
        """Segment length and stride in samples."""
        length = int(seconds * self.sampling_rate)
        return length, max(1, int((1 - (self.overlap or 0)) * length))


class LanguageModelSpec(BaseModel):
    """Settings of the language model for entropy coding."""

    model_config = ConfigDict(frozen=True)

    codebooks: int
    entries: int
    context: int
    weights: WeightSource


class EncodecSpec(CodecSpec):
    """An EnCodec model with its architecture."""

    architecture: EncodecArchitecture
    language_model: LanguageModelSpec | None = None


PUBLISHED = "https://dl.fbaipublicfiles.com/encodec/v0/"
CACHES = ("$TORCH_HOME/hub/checkpoints", "$XDG_CACHE_HOME/torch/hub/checkpoints", "~/.cache/torch/hub/checkpoints")
"""Cache folder of `torch.hub`, which the authors' package uses."""
FILE_NAMES = ("checkpoint.th", "compression_state_dict.bin", "state_dict.bin")
"""File name of audiocraft's checkpoints."""
COMMITS = {
    "encodec_24khz": "c1dbe2ae3f1de713481a3b3e7c47f357092ee040",
    "encodec_32khz": "d0c45384f6c44db055f78200cfdcb9c1c8706727",
    "encodec_48khz": "c3def8e7185ac8c8efdce6eb8c4a651e487a503e",
}
"""Commits of the repositories on the Hub."""
CONTEXT_SECONDS = 3.5
"""Context of the language models."""
NOTICE = (
    "the weights were published under CC BY-NC 4.0, which excludes commercial use. Since April 2023 the authors' repository "
    "states the MIT licence for the code, and none for the weights. Ask the authors before commercial use"
)


def _source(file: str, sha256: str) -> WeightSource:
    return WeightSource(url=PUBLISHED, file=file, sha256=sha256, caches=tuple(f"{folder}/{file}" for folder in CACHES))


def _on_the_hub(name: str) -> WeightSource:
    return WeightSource(repo=f"facebook/{name}", revision=COMMITS[name], file="model.safetensors", config_file="config.json")


def _spec(name: str, architecture: EncodecArchitecture, **fields: Any) -> EncodecSpec:
    """Make a spec with the fields that follow from the architecture."""
    a = architecture
    return EncodecSpec(
        api_version=1,
        name=name,
        family="encodec",
        backend="blazen_codec_encodec.backend:EncodecBackend",
        upstream="blazen_codec_encodec.upstream:UpstreamEncodecBackend",
        sample_rate=a.sampling_rate,
        channels=a.audio_channels,
        hop_length=a.hop_length,
        strides=(1,) * a.num_codebooks,
        latent_channels=a.hidden_size,
        codebook_size=a.codebook_size,
        codebook_choices=tuple(sorted(set(a.codebook_choices))),
        block_frames=1,
        padded=False,
        segment=a.segment,
        capabilities=LAYERS,
        architecture=a,
        file_names=FILE_NAMES,
        tile_frames=a.tile_frames,
        **fields,
    )


def _published(
    name: str, architecture: EncodecArchitecture, file: str, sha256: str, lm_file: str, lm_sha256: str, **fields: Any
) -> EncodecSpec:
    """Make the spec of a published model."""
    a, repo = architecture, f"facebook/{name}"
    return _spec(
        name,
        architecture,
        aliases=(repo,),
        weights=_source(file, sha256),
        mirrors=(_on_the_hub(name),),
        license="CC BY-NC 4.0 as first published; the authors' code is now MIT",
        license_notice=NOTICE,
        homepage="https://github.com/facebookresearch/encodec",
        language_model=LanguageModelSpec(
            codebooks=a.num_codebooks,
            entries=a.codebook_size,
            context=int(CONTEXT_SECONDS * a.frame_rate),
            weights=_source(lm_file, lm_sha256),
        ),
        **fields,
    )


ENCODEC_24KHZ = EncodecArchitecture(
    sampling_rate=24_000,
    audio_channels=1,
    target_bandwidths=(1.5, 3.0, 6.0, 12.0, 24.0),
    norm_type="weight_norm",
    use_causal_conv=True,
    normalize=False,
)
ENCODEC_48KHZ = EncodecArchitecture(
    sampling_rate=48_000,
    audio_channels=2,
    target_bandwidths=(3.0, 6.0, 12.0, 24.0),
    norm_type="time_group_norm",
    use_causal_conv=False,
    normalize=True,
    chunk_length_s=1.0,
    overlap=0.01,
)
ENCODEC_32KHZ = EncodecArchitecture(
    sampling_rate=32_000,
    num_filters=64,
    upsampling_ratios=(8, 5, 4, 4),
    codebook_size=2048,
    target_bandwidths=(2.2,),
    use_causal_conv=False,
    use_conv_shortcut=False,
)
ENCODEC_TINY = EncodecArchitecture(
    sampling_rate=24_000,
    audio_channels=1,
    num_filters=12,
    upsampling_ratios=(5, 4, 4, 4),
    hidden_size=64,
    num_lstm_layers=1,
    target_bandwidths=(1.5, 3.0, 6.0),
    norm_type="weight_norm",
    use_causal_conv=True,
    normalize=False,
)

AUTHORS = (
    _published(
        "encodec_24khz",
        ENCODEC_24KHZ,
        "encodec_24khz-d7cc33bc.th",
        "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf",
        "encodec_lm_24khz-1608e3c0.th",
        "1608e3c0",
        description="Speech, music and sound at 24 kHz, causal",
        default=True,
        default_codebooks=8,
    ),
    _published(
        "encodec_48khz",
        ENCODEC_48KHZ,
        "encodec_48khz-7e698e3e.th",
        "7e698e3e",
        "encodec_lm_48khz-7add9fc3.th",
        "7add9fc3",
        description="Stereo music at 48 kHz, in segments of a second",
        default_codebooks=4,
    ),
)
"""The published models, which the authors' file format supports."""

MUSICGEN_NOTICE = "the weights were published with MusicGen under CC BY-NC 4.0, which excludes commercial use"
SPECS = (
    *AUTHORS,
    _spec(
        "encodec_32khz",
        ENCODEC_32KHZ,
        description="Music at 32 kHz, the codec of MusicGen",
        aliases=("facebook/encodec_32khz",),
        weights=_on_the_hub("encodec_32khz"),
        license="CC BY-NC 4.0",
        license_notice=MUSICGEN_NOTICE,
        homepage="https://github.com/facebookresearch/audiocraft",
    ),
    _spec(
        "encodec_tiny",
        ENCODEC_TINY,
        description="A small model that ships with the plugin",
        weights=WeightSource(package="blazen_codec_encodec", file="tiny.safetensors"),
        license="MIT",
    ),
)


def custom(architecture: EncodecArchitecture, **fields: Any) -> EncodecSpec:
    """Make the spec of a model with other settings; `fields` has its name and weights."""
    return _spec(architecture=architecture, **fields)
