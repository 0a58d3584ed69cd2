"""Descriptions of models that plugins give, as frozen data. Importing this costs no more than pydantic."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from .api_version import API_VERSION, IncompatiblePlugin
from .errors import InvalidInput, reason

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
ObjectPath = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]
Engine = Literal["native", "upstream"]
ArchitectureSource = Literal["from-weights"]
Direction = Literal["encode", "decode"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceCapabilities(_Frozen):
    """Devices and floating types that a model runs on, and its ways to run.

    Attributes:
        devices: PyTorch device types, best first.
        dtypes: Floating types of the network; tokens are promised equal to the authors' in `float32` only.
        streams: In which directions sessions take the signal in pieces, in bounded memory, and give what the whole gives. In
            another one, asking for a session raises `NotYetImplemented`.
        batches: Signals of different lengths can run side by side. Where they do not, a batch runs one after the other.
    """

    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    streams: tuple[Direction, ...] = ("encode", "decode")
    batches: bool = True


LAYERS = DeviceCapabilities(devices=("cuda", "mps", "cpu"), dtypes=("float32", "tfloat32", "bfloat16", "float16"))
"""Of networks made of the layers in `nn`."""


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision of a repository names one state of it for ever."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


class WeightSource(_Frozen):
    """Place of a model's weights: inside an installed package, on the Hugging Face Hub, or at an address.

    Attributes:
        file: The file's name.
        package: The package that ships it.
        repo: The Hub repository that publishes it.
        url: The address of the folder that publishes it.
        revision: Of the repository: a branch, tag or commit. Only a commit, in 40 hexadecimal digits, is the same tomorrow.
        config_file: A file beside it that describes the architecture, checked against the spec.
        caches: Where the publisher's own tool keeps the file once downloaded, `~` and `$VARIABLES` included; looked at before
            anything is downloaded from `url`.
        sha256: Of the file, or as much of its start as is known.
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
            raise ValueError("weights are either in a package, in a repo or at a url")
        return self

    @property
    def is_pinned(self) -> bool:
        """Tell whether it is known which file it is: it ships with a package, or has a digest or a commit."""
        return bool(self.package or self.sha256 or (self.repo and is_commit(self.revision)))

    @property
    def place(self) -> str:
        """Place of the file, for people."""
        return f"{self.url}{self.file}" if self.url else f"{self.file} in {self.package or self.repo}"


class Segment(_Frozen):
    """Segments that a codec cuts the signal into and treats one by one; the last may be shorter.

    Attributes:
        length: Samples of a segment.
        stride: Samples from the start of one to that of the next. Neighbours overlap by the difference, where decoding fades
            linearly from one to the other.
        normalized: Whether each is divided by its own scale, which is part of the tokens.
    """

    length: Positive
    stride: Positive
    normalized: bool = False

    @model_validator(mode="after")
    def _overlaps_once(self) -> Segment:
        if not self.stride <= self.length <= 2 * self.stride:
            raise ValueError("a segment may overlap the next one, but not the one after that")
        return self

    @property
    def overlap(self) -> int:
        return self.length - self.stride

    def count(self, samples: int) -> int:
        """Segments of a signal of so many samples: one starts every `stride` samples until it ends."""
        return -(-samples // self.stride)

    def frames_of(self, number: int, samples: int, hop_length: int) -> int:
        """Frames of one of the segments of a signal of so many samples."""
        return -(-min(self.length, samples - number * self.stride) // hop_length)

    def frames(self, samples: int, hop_length: int) -> int:
        """Frames of all segments of a signal of so many samples; all but the last two are whole."""
        count = self.count(samples)
        whole = max(0, count - 2)
        ends = sum(self.frames_of(number, samples, hop_length) for number in range(whole, count))
        return whole * self.length // hop_length + ends

    def samples(self, frames: int, hop_length: int) -> int:
        """The longest signal whose segments have no more than so many frames."""
        return bisect.bisect_right(range(frames * hop_length + 1), frames, key=lambda n: self.frames(n, hop_length)) - 1


class CodecSpec(_Frozen):
    """One model. A plugin may subclass this to say more of it, such as which type its architecture is.

    Attributes:
        api_version: The generation of the interface that the plugin is built for, written as a number: `API_VERSION` of the core
            that it was written against. Where core has another one, the plugin is not used, and its user is told what to upgrade.
        name: What it is looked up by.
        family: The codec it is a model of.
        backend: `module:Class` of the backend; imported when a codec is created, not before.
        upstream: The same for the authors' own package behind the trait, where there is one.
        aliases: Other names, such as the repository that publishes the weights.
        default: Whether the family's name alone means this model.
        sample_rate: In hertz.
        channels: Of the network. A model of one channel runs the channels of its input as separate streams.
        hop_length: Samples a frame of the finest codebook.
        strides: Frames a token of each codebook covers, coarsest meaning largest.
        codebook_size: Entries a codebook.
        codebook_choices: How many of the first codebooks can be used; all of them only, if empty.
        default_codebooks: How many are used where nothing else is asked for; all of them, if not given.
        block_frames: Tokens are decoded in multiples of this many frames.
        padded: Whether audio is padded with zeros to a multiple of `block_frames`; otherwise the network ends a signal of any
            length by itself.
        segment: How the signal is cut, for a codec that treats it in segments.
        token_extras: What its tokens may say besides; see `CodecTokens.extra`.
        tile_frames: Frames that run through the network at a time; a multiple of `block_frames`.
        weights: Where its weights are.
        file_names: Other names that a folder's weights may have, such as a trainer's.
        mirrors: Other places that have them, tried in this order.
        license: Of the weights, as their publisher states it.
        license_notice: What a user has to be told once about it, such as that it is non-commercial.
        architecture: What decides the network's shape; a config published beside the weights is held against it.
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
    strides: Annotated[tuple[Positive, ...], Field(min_length=1)]
    codebook_size: Positive
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
        """Asked first, since the fields of another generation may be others."""
        if isinstance(fields, dict) and fields.get("api_version", API_VERSION) != API_VERSION:
            raise IncompatiblePlugin(str(fields.get("name")), fields["api_version"])
        return fields

    @model_validator(mode="after")
    def _blocks(self) -> CodecSpec:
        if self.block_frames % math.lcm(*self.strides) or self.tile_frames % self.block_frames:
            raise ValueError("block_frames must hold whole tokens of every codebook, and tile_frames whole blocks")
        if self.segment and (self.segment.length % self.hop_length or self.tile_frames * self.hop_length != self.segment.length):
            raise ValueError("a segment holds whole frames, and is what runs at a time")
        if not set(self.codebook_choices) <= set(range(1, self.num_codebooks + 1)) or (
            self.default_codebooks and self.default_codebooks not in self.usable_codebooks
        ):
            raise ValueError("codebook_choices are among the codebooks that there are, and the default is one of them")
        return self

    @property
    def identity(self) -> str:
        """`family:name`, by which tokens say what made them."""
        return f"{self.family}:{self.name}"

    @property
    def num_codebooks(self) -> int:
        return len(self.strides)

    @property
    def usable_codebooks(self) -> tuple[int, ...]:
        """Numbers of codebooks that can be used, in rising order; a number stands for the first codebooks."""
        return tuple(sorted(self.codebook_choices)) or (self.num_codebooks,)

    @property
    def codebook_numbers(self) -> str:
        """`usable_codebooks`, for people."""
        usable = self.usable_codebooks
        if len(usable) > 2 and usable == tuple(range(usable[0], usable[-1] + 1)):
            return f"{usable[0]} to {usable[-1]}"
        return _either(usable)

    @property
    def used_codebooks(self) -> int:
        """Number of codebooks that are used by default."""
        return self.default_codebooks or self.num_codebooks

    @property
    def frame_rate(self) -> float:
        """Frames of the finest codebook a second, in hertz."""
        return self.sample_rate / self.hop_length

    @property
    def token_rate(self) -> float:
        """Tokens a second for each stream, with the default number of codebooks."""
        return self.tokens_a_second(self.used_codebooks)

    @property
    def bandwidth(self) -> float:
        """Kilobits a second for each stream, with the default number of codebooks."""
        return self.kbps(self.used_codebooks)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """Kilobits a second for each stream that can be had, in rising order."""
        return tuple(self.kbps(count) for count in self.usable_codebooks)

    @property
    def sources(self) -> tuple[WeightSource, ...]:
        """Everywhere the weights are published."""
        return (self.weights, *self.mirrors)

    def missing_samples(self, samples: int) -> int:
        """With how many zeros a signal is padded before it is encoded."""
        return -samples % (self.block_frames * self.hop_length) if self.padded else 0

    def tokens_a_second(self, codebooks: int) -> float:
        """Tokens a second for each stream, with the first so many codebooks."""
        return sum(self.frame_rate / stride for stride in self.strides[:codebooks])

    def kbps(self, codebooks: int) -> float:
        """Kilobits a second for each stream, with the first so many codebooks."""
        return self.tokens_a_second(codebooks) * math.log2(self.codebook_size) / 1000

    def codebooks_for(self, bandwidth: float | None = None, num_codebooks: int | None = None) -> int:
        """Number of codebooks for a bandwidth or a number; the default if neither is given.

        Args:
            bandwidth: Kilobits a second and stream; the nearest that can be had is taken, if it is within 5 %.
            num_codebooks: How many, in place of a bandwidth.

        Raises:
            InvalidInput: The model has no such bandwidth or number, or both were given.
        """
        usable = self.usable_codebooks
        if bandwidth is not None and num_codebooks is not None:
            raise InvalidInput(f"bandwidth {bandwidth!r} and num_codebooks {num_codebooks!r}: give one of them")
        if num_codebooks is not None:
            if isinstance(num_codebooks, bool) or num_codebooks not in usable:
                raise InvalidInput(f"{self.name} uses {self.codebook_numbers} codebooks, not {num_codebooks!r}")
            return int(num_codebooks)
        if bandwidth is None:
            return self.used_codebooks
        number: Any = bandwidth
        if isinstance(number, Real):
            nearest = min(usable, key=lambda count: abs(bandwidth - self.kbps(count)))
            if abs(bandwidth - self.kbps(nearest)) <= 0.05 * self.kbps(nearest):
                return nearest
        raise InvalidInput(f"{self.name} has {_either(f'{b:.4g}' for b in self.bandwidths)} kbps, not {bandwidth!r}")


def _either(values: Iterable[object]) -> str:
    """`1, 2 or 4`."""
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


class LoadOptions(_Frozen):
    """Options for loading a codec.

    Attributes:
        device: `auto` for the best that is there, or a PyTorch device such as `cpu` or `cuda:1`.
        dtype: Floating type of the network. `tfloat32` is float32 whose products are TF32's, on devices that have these.
        engine: `native`, or `upstream` for the authors' own package.
        weights: A file, a directory, a Hub id (`owner/name`), `random:SEED`, or `None` for those of the spec.
        revision: Of the Hub repository, in place of the spec's.
        cache_dir: Where downloads are kept; the Hub's own default otherwise.
        offline: Never use the network.
        trust_pickle: Read published pickles of which neither a digest nor a commit is known. No code in one is ever run; still,
            whoever publishes it may put another in its place.
        noise: Whether decoders that add noise do so.
        noise_seed: Which noise; `None` draws a fresh seed for every decode.
        strict_weights: Refuse tokens that say other weights made them; otherwise `OtherWeightsNotice` is given.
        architecture: `from-weights` for a model of other settings than the published ones: its config, beside the weights or
            in them, says what it is. The name then only says which family it is of.
        graphs: Record the steps of single signals as CUDA graphs: for sessions in small tiles. Segments run as they do.
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
    graphs: bool = False

    @classmethod
    def of(cls, **options: object) -> LoadOptions:
        """Checked options; paths may be `pathlib.Path`.

        Raises:
            InvalidInput: An option is unknown or has a value it cannot have.
        """
        texts = {
            name: str(v) if name in ("weights", "cache_dir", "device") and v is not None else v for name, v in options.items()
        }
        try:
            return cls.model_validate(texts)
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            raise InvalidInput(f"option {reason(error)}. Options are: {known}") from error
