"""What a plugin says about its models, as frozen data. Importing this costs no more than pydantic."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import InvalidInput

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
ObjectPath = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]
Engine = Literal["native", "upstream"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class DeviceCapabilities(_Frozen):
    """What a model runs on.

    Attributes:
        devices: PyTorch device types, best first.
        dtypes: Floating types of the network; tokens are promised equal to the authors' in `float32` only.
        streams: Sessions take the signal in pieces and give the tokens of the whole.
        batches: Signals of different lengths run side by side and give what each gives alone.
    """

    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    streams: bool = True
    batches: bool = True


class WeightSource(_Frozen):
    """Where the weights of a model are: inside an installed package, or on the Hugging Face Hub.

    Attributes:
        file: The file's name.
        package: The package that ships it.
        repo: The Hub repository that publishes it.
        revision: Of the repository: a branch, tag or commit.
        config_file: A file beside it that describes the architecture, checked against the spec.
        sha256: Of the file, where it is known.
    """

    file: str
    package: str | None = None
    repo: str | None = None
    revision: str = "main"
    config_file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> WeightSource:
        if (self.package is None) == (self.repo is None):
            raise ValueError("weights are either in a package or in a repo")
        return self


class CodecSpec(_Frozen):
    """One model. A plugin may subclass this to add its architecture.

    Attributes:
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
        block_frames: Audio is padded to, and tokens are decoded in, multiples of this many frames.
        tile_frames: Frames that run through the network at a time; a multiple of `block_frames`.
    """

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
    block_frames: Positive
    tile_frames: Positive
    weights: WeightSource
    licence: str
    homepage: str | None = None
    capabilities: DeviceCapabilities = DeviceCapabilities()

    @model_validator(mode="after")
    def _blocks(self) -> CodecSpec:
        if self.block_frames % math.lcm(*self.strides) or self.tile_frames % self.block_frames:
            raise ValueError("block_frames must hold whole tokens of every codebook, and tile_frames whole blocks")
        return self

    @property
    def identity(self) -> str:
        """`family:name`, by which tokens say what made them."""
        return f"{self.family}:{self.name}"

    @property
    def num_codebooks(self) -> int:
        return len(self.strides)

    @property
    def frame_rate(self) -> float:
        """Frames of the finest codebook a second, in hertz."""
        return self.sample_rate / self.hop_length

    @property
    def token_rate(self) -> float:
        """Tokens of all codebooks a second, for each stream."""
        return sum(self.frame_rate / stride for stride in self.strides)

    @property
    def bandwidth(self) -> float:
        """Kilobits a second for each stream, at the full number of codebooks."""
        return self.token_rate * math.log2(self.codebook_size) / 1000


class LoadOptions(_Frozen):
    """How a codec is loaded.

    Attributes:
        device: `auto` for the best that is there, or a PyTorch device such as `cpu` or `cuda:1`.
        dtype: Floating type of the network.
        engine: `native`, or `upstream` for the authors' own package.
        weights: A file, a directory, a Hub id (`owner/name`), `random:SEED`, or `None` for those of the spec.
        revision: Of the Hub repository, in place of the spec's.
        cache_dir: Where downloads are kept; the Hub's own default otherwise.
        offline: Never use the network.
        noise: Whether decoders that add noise do so.
        noise_seed: Which noise; `None` draws a fresh seed for every decode.
    """

    device: str = "auto"
    dtype: str = "float32"
    engine: Engine = "native"
    weights: str | None = None
    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    noise: bool = True
    noise_seed: Annotated[int, Field(ge=0, lt=2**64)] | None = 0

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
            first = error.errors()[0]
            known = ", ".join(cls.model_fields)
            raise InvalidInput(f"option {'.'.join(map(str, first['loc']))}: {first['msg']}. Options are: {known}") from error
