"""Specs: descriptions of models by plugins, as frozen data. Importing this module imports only pydantic."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from .api_version import API_VERSION, IncompatiblePlugin
from .errors import InvalidInput, NotYetImplemented, reason

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
ObjectPath = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]
Engine = Literal["native", "upstream", "onnx"]
ArchitectureSource = Literal["from-weights"]
Direction = Literal["encode", "decode"]
Half = Literal["encoder", "decoder"]
Latency = Literal["lowest", "throughput"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceCapabilities(_Frozen):
    """Devices, floating types and modes that a model supports.

    Attributes:
        devices: PyTorch device types, best first.
        dtypes: Floating types of the network. Only `float32` guarantees the authors' tokens.
        streams: Directions in which sessions are chunk-exact in bounded memory. Other directions raise `NotYetImplemented`.
        batches: Signals of different lengths can run as one batch. Otherwise they run one after the other.
        pools: Directions in which the streams of a pool run as one batch. In others each has a session, in the same pool.
    """

    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    streams: tuple[Direction, ...] = ("encode", "decode")
    batches: bool = True
    pools: tuple[Direction, ...] = ()


LAYERS = DeviceCapabilities(
    devices=("cuda", "mps", "cpu"), dtypes=("float32", "tfloat32", "bfloat16", "float16"), pools=("encode", "decode")
)
"""Capabilities of networks made of the layers in `nn`."""


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision of a repository is a commit, and so immutable."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


class WeightSource(_Frozen):
    """Source of a model's weights: an installed package, the Hugging Face Hub, or a URL.

    Attributes:
        file: File name.
        package: Package that ships the file.
        repo: Hub repository.
        url: URL of the folder.
        revision: Branch, tag or commit of the repository. Only a commit of 40 hexadecimal digits is immutable.
        config_file: File in the same place that describes the architecture, checked against the spec.
        caches: Paths where the publisher's own tool caches the file, with `~` and `$VARIABLES`; tried before a download from
            `url`.
        sha256: Digest of the file, or a prefix of it.
    """

    file: str
    package: str | None = None
    repo: str | None = None
    url: Annotated[str, Field(pattern=r"^https://.*/$")] | None = None
    revision: str = "main"
    config_file: str | None = None
    caches: tuple[str, ...] = ()
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> WeightSource:
        if [self.package, self.repo, self.url].count(None) != 2:
            raise ValueError("weights need exactly one of package, repo and url")
        return self

    @property
    def is_pinned(self) -> bool:
        """True if a package, a digest or a commit determines the file."""
        return bool(self.package or self.sha256 or (self.repo and is_commit(self.revision)))

    @property
    def place(self) -> str:
        """Display name of the place."""
        return f"{self.url}{self.file}" if self.url else f"{self.file} in {self.package or self.repo}"


class Segment(_Frozen):
    """Segmentation of a codec that processes a signal in overlapping segments; the last may be shorter.

    Attributes:
        length: Samples per segment.
        stride: Samples between the starts of consecutive segments. Where they overlap, decoding cross-fades linearly.
        normalized: Each segment is divided by its own scale, which is part of the tokens.
    """

    length: Positive
    stride: Positive
    normalized: bool = False

    @model_validator(mode="after")
    def _overlaps_once(self) -> Segment:
        if not self.stride <= self.length <= 2 * self.stride:
            raise ValueError("a segment may overlap only the next one; expected stride <= length <= 2 * stride")
        return self

    @property
    def overlap(self) -> int:
        """Samples in which consecutive segments overlap."""
        return self.length - self.stride

    def count(self, samples: int) -> int:
        """Return the number of segments of a signal of `samples` samples; one starts every `stride` samples."""
        return -(-samples // self.stride)

    def frames_of(self, number: int, samples: int, hop_length: int) -> int:
        """Return the number of frames of segment `number` of a signal of `samples` samples."""
        return -(-min(self.length, samples - number * self.stride) // hop_length)

    def frames(self, samples: int, hop_length: int) -> int:
        """Return the number of frames of all segments of a signal; all but the last two are complete."""
        count = self.count(samples)
        whole = max(0, count - 2)
        ends = sum(self.frames_of(number, samples, hop_length) for number in range(whole, count))
        return whole * self.length // hop_length + ends

    def samples(self, frames: int, hop_length: int) -> int:
        """Return the length of the longest signal whose segments have at most `frames` frames."""
        return bisect.bisect_right(range(frames * hop_length + 1), frames, key=lambda n: self.frames(n, hop_length)) - 1


class CodecSpec(_Frozen):
    """Description of one model. Plugins may subclass it, for instance to type the architecture.

    Attributes:
        api_version: Interface generation that the plugin is written for, as a literal number: `API_VERSION` of that core. Core
            rejects plugins of other generations and tells the user what to upgrade.
        name: Name for look-ups.
        family: Codec family.
        description: One-line description.
        backend: `module:Class` of the backend, imported when a codec is created.
        upstream: `module:Class` of the wrapper of the authors' package, if there is one.
        aliases: Other names, such as the repository of the weights.
        default: The family's name alone means this model.
        sample_rate: Sample rate in Hz.
        channels: Channels of the network. A mono model runs the channels of its input as separate streams.
        hop_length: Samples per frame.
        strides: Frames per token of each codebook; empty for a continuous codec, which has latents and no tokens.
        codebook_size: Entries per codebook.
        latent_channels: Channels of the latent. Continuous codecs must say.
        codebook_choices: Usable numbers of codebooks, counted from the first; empty for all codebooks only.
        default_codebooks: Number of codebooks used by default; all if not given.
        block_frames: Decoding needs a multiple of this number of frames.
        padded: Audio is zero-padded to a multiple of `block_frames`. Otherwise the network accepts any length.
        segment: Segmentation, for codecs that process segments.
        token_extras: Allowed names in `CodecTokens.extra`.
        tile_frames: Frames per tile, a multiple of `block_frames`.
        weights: Primary source of the weights.
        file_names: Other file names of weights in a folder, such as a trainer's.
        mirrors: Other sources of the weights, in order of preference.
        license: Licence of the weights according to their publisher.
        license_notice: Notice about the licence that is shown once, such as non-commercial use.
        homepage: URL of the model's page.
        capabilities: Supported devices, types and modes.
        architecture: Settings that determine the network; a config published with the weights must match it.
    """

    api_version: int
    name: Name
    family: Name
    description: str
    backend: ObjectPath
    upstream: ObjectPath | None = None
    aliases: tuple[str, ...] = ()
    default: bool = False
    sample_rate: Positive
    channels: Positive = 1
    hop_length: Positive
    strides: tuple[Positive, ...] = ()
    codebook_size: Annotated[int, Field(ge=0)] = 0
    latent_channels: Positive | None = None
    codebook_choices: tuple[Positive, ...] = ()
    default_codebooks: Positive | None = None
    block_frames: Positive
    padded: bool = True
    segment: Segment | None = None
    token_extras: tuple[str, ...] = ()
    tile_frames: Positive
    weights: WeightSource
    file_names: tuple[str, ...] = ()
    mirrors: tuple[WeightSource, ...] = ()
    license: str
    license_notice: str | None = None
    homepage: str | None = None
    capabilities: DeviceCapabilities = DeviceCapabilities()
    architecture: SerializeAsAny[BaseModel] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_this_generation(cls, fields: Any) -> Any:
        """Check the generation before the fields, which may differ between generations."""
        if isinstance(fields, dict) and fields.get("api_version", API_VERSION) != API_VERSION:
            raise IncompatiblePlugin(str(fields.get("name")), fields["api_version"])
        return fields

    @model_validator(mode="after")
    def _tokens_or_latents(self) -> CodecSpec:
        if not self.is_continuous and not self.codebook_size:
            raise ValueError("codebook_size must be the number of entries of a codebook")
        if self.is_continuous and self.latent_channels is None:
            raise ValueError("strides are missing; a codec without codebooks needs latent_channels")
        if self.is_continuous and (self.codebook_size or self.segment or self.token_extras):
            raise ValueError("a codec without strides has no tokens, so no codebook_size, segment or token_extras")
        return self

    @model_validator(mode="after")
    def _blocks(self) -> CodecSpec:
        if self.block_frames % math.lcm(*self.strides) or self.tile_frames % self.block_frames:
            raise ValueError("block_frames must be a multiple of every stride, and tile_frames a multiple of block_frames")
        if self.segment and (self.segment.length % self.hop_length or self.tile_frames * self.hop_length != self.segment.length):
            raise ValueError("segment.length must be a multiple of hop_length, and equal to a tile")
        if not set(self.codebook_choices) <= set(range(1, self.num_codebooks + 1)) or (
            self.default_codebooks and self.default_codebooks not in self.usable_codebooks
        ):
            raise ValueError("codebook_choices must be numbers of existing codebooks, and default_codebooks one of them")
        return self

    @property
    def summary(self) -> str:
        """Rate, channels, codebooks and bandwidth in a few words."""
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        if self.is_continuous:
            return f"{self.sample_rate} Hz {channels}, {self.latent_channels} latent channels at {self.frame_rate:.4g} Hz"
        codebooks = f"{self.used_codebooks} codebooks of {self.codebook_size}"
        return f"{self.sample_rate} Hz {channels}, {codebooks}, {self.bandwidth:.2f} kbps"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.identity}, {self.summary}>"

    def __str__(self) -> str:
        return repr(self)

    @property
    def identity(self) -> str:
        """`family:name`, which identifies the model in tokens."""
        return f"{self.family}:{self.name}"

    @property
    def is_continuous(self) -> bool:
        """True for a codec that has latents and no tokens."""
        return not self.strides

    def check_has_tokens(self) -> None:
        """Raise `NotYetImplemented` for a continuous codec."""
        if self.is_continuous:
            raise NotYetImplemented(
                f"{self.name} is a continuous codec: it has latents and no tokens; use encode_latents and decode_latents"
            )

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks; 0 for a continuous codec."""
        return len(self.strides)

    @property
    def usable_codebooks(self) -> tuple[int, ...]:
        """Usable numbers of codebooks, counted from the first, in ascending order."""
        if self.is_continuous:
            return ()
        return tuple(sorted(self.codebook_choices)) or (self.num_codebooks,)

    @property
    def codebook_numbers(self) -> str:
        """`usable_codebooks` as text."""
        usable = self.usable_codebooks or (0,)
        if len(usable) > 2 and usable == tuple(range(usable[0], usable[-1] + 1)):
            return f"{usable[0]} to {usable[-1]}"
        return _either(usable)

    @property
    def used_codebooks(self) -> int:
        """Default number of codebooks."""
        return self.default_codebooks or self.num_codebooks

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def token_rate(self) -> float:
        """Tokens per second and stream, with the default number of codebooks."""
        return self.tokens_a_second(self.used_codebooks)

    @property
    def bandwidth(self) -> float:
        """Bandwidth in kbps per stream, with the default number of codebooks."""
        return self.kbps(self.used_codebooks)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """Available bandwidths in kbps per stream, in ascending order."""
        return tuple(self.kbps(count) for count in self.usable_codebooks)

    @property
    def sources(self) -> tuple[WeightSource, ...]:
        """All sources of the weights."""
        return (self.weights, *self.mirrors)

    def missing_samples(self, samples: int) -> int:
        """Return the number of zeros that a signal is padded with before encoding."""
        return -samples % (self.block_frames * self.hop_length) if self.padded else 0

    def tokens_a_second(self, codebooks: int) -> float:
        """Return the tokens per second and stream, with the first `codebooks` codebooks."""
        return sum(self.frame_rate / stride for stride in self.strides[:codebooks])

    def kbps(self, codebooks: int) -> float:
        """Return the bandwidth in kbps per stream, with the first `codebooks` codebooks."""
        return self.tokens_a_second(codebooks) * math.log2(max(1, self.codebook_size)) / 1000

    def codebooks_for(self, bandwidth: float | None = None, num_codebooks: int | None = None) -> int:
        """Resolve a bandwidth or a number of codebooks; the default if neither is given.

        Args:
            bandwidth: Bandwidth in kbps per stream; the nearest available one within 5 % is used.
            num_codebooks: Number of codebooks, instead of a bandwidth.

        Raises:
            InvalidInput: The model does not support the bandwidth or number, or both were given.
            NotYetImplemented: The codec is continuous.
        """
        self.check_has_tokens()
        usable = self.usable_codebooks
        if bandwidth is not None and num_codebooks is not None:
            raise InvalidInput(f"bandwidth is {bandwidth!r} and num_codebooks is {num_codebooks!r}; give only one")
        if num_codebooks is not None:
            if isinstance(num_codebooks, bool) or num_codebooks not in usable:
                raise InvalidInput(f"num_codebooks is {num_codebooks!r}; {self.name} supports {self.codebook_numbers}")
            return int(num_codebooks)
        if bandwidth is None:
            return self.used_codebooks
        number: Any = bandwidth
        if isinstance(number, Real):
            nearest = min(usable, key=lambda count: abs(bandwidth - self.kbps(count)))
            if abs(bandwidth - self.kbps(nearest)) <= 0.05 * self.kbps(nearest):
                return nearest
        raise InvalidInput(
            f"bandwidth is {bandwidth!r}; {self.name} supports {_either(f'{b:.4g}' for b in self.bandwidths)} kbps"
        )


def _either(values: Iterable[object]) -> str:
    """Format values as `1, 2 or 4`."""
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


PATHS_AND_TYPES = ("weights", "cache_dir", "device", "dtype")
"""Options that may be objects with a name."""


def _as_text(value: object) -> str:
    """Text of a path, a device or a floating type."""
    return value.__name__ if isinstance(value, type) else str(value).removeprefix("torch.")


class LoadOptions(_Frozen):
    """Options for loading a codec.

    Attributes:
        device: `auto` for the best available device, or a PyTorch device such as `cpu` or `cuda:1`.
        dtype: Floating type of the network. `tfloat32` is float32 with TF32 products, on devices that support them.
        engine: `native`, `upstream` for the authors' package, or `onnx` for exported graphs, whose folder is `weights`.
        weights: A file, a folder, a Hub id (`owner/name`), `random:SEED`, or `None` for the published weights.
        revision: Revision of the Hub repository, instead of the spec's.
        cache_dir: Folder for downloads; the Hub's default if not given.
        offline: Never use the network.
        trust_pickle: Read published pickles without a known digest or commit. Code in them is never run, but their publisher can
            replace them.
        noise: Let decoders with noise blocks add noise.
        noise_seed: Seed of the noise; `None` draws a new seed for every decode.
        strict_weights: Refuse tokens made with other weights; otherwise warn with `OtherWeightsNotice`.
        architecture: `from-weights` for a model with other settings than the published ones. Its config, beside or in the
            weights, has the settings; the name determines only the family.
        parts: `encoder` or `decoder` to load only that half, with its quantizer; the other's methods raise `InvalidInput`. Codecs
            on their authors' packages, and backends that are no `TorchCodecBackend`, load both.
        graphs: Capture the steps of single signals as CUDA graphs, for sessions with small tiles. Segments are not captured.
    """

    device: str = "auto"
    dtype: str = "float32"
    engine: Engine = "native"
    weights: str | None = None
    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    trust_pickle: bool = False
    noise: bool = True
    noise_seed: Annotated[int, Field(ge=0, lt=2**64)] | None = 0
    strict_weights: bool = False
    architecture: ArchitectureSource | None = None
    parts: Half | None = None
    graphs: bool = False

    @classmethod
    def of(cls, **options: object) -> LoadOptions:
        """Validate options; paths may be `pathlib.Path`, and a type `torch.float32` or `numpy.float32`.

        Raises:
            InvalidInput: An option is unknown or invalid.
        """
        texts = {name: _as_text(v) if name in PATHS_AND_TYPES and v is not None else v for name, v in options.items()}
        try:
            return cls.model_validate(texts)
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            raise InvalidInput(f"option {reason(error)}. Options are: {known}") from error
