"""`CodecTokens` on disk: a safetensors file with an array a codebook and the rest as JSON in its metadata.

Codes are stored in the smallest unsigned type that holds the codebook. Nothing in the file is ever executed, and sizes
are checked against the file before anything is read.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from ..errors import CorruptFile, InvalidInput, InvalidTokens, reason
from ..files import existing, replacing
from ..foreign_json import NotJson, parse_object
from ..specs import CodecSpec, LoadOptions, Segment
from .tokens import CodecTokens, Source

KEY = "blazen_codec"
VERSION = 1
SUFFIX = ".tokens"
SCALES = "scales"


class TokenFormat(ABC):
    """A kind of file that holds tokens.

    Attributes:
        name: What it is called in messages.
        suffixes: Of its files, with the dot.
        streams: How many streams a file can hold; any number if `None`.
        option_names: What `read` and `write` can be told, each with a line that says what it does.
    """

    name: str
    suffixes: tuple[str, ...]
    streams: int | None = None
    option_names: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        """Writes the file, whole or not at all.

        Args:
            loading: How a model that the format itself needs is loaded.

        Raises:
            InvalidTokens: The format cannot hold them.
            InvalidInput: An option is unknown or wrong, or the file cannot be written.
        """

    @abstractmethod
    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        """Reads the file; options as for `write`.

        Raises:
            CorruptFile: It is not one.
            InvalidInput: There is no such file, or an option is unknown or wrong.
        """

    def check(self, spec: CodecSpec, channels: int) -> None:  # noqa: B027 most formats take all
        """Raises `InvalidTokens` if tokens of so many channels of this model could not be written; asked before the work."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """Raises `InvalidInput` unless the format knows all of these."""
        for name in options:
            if name not in self.option_names:
                known = ", ".join(self.option_names) or "none"
                raise InvalidInput(f"{self.name} files have no option {name!r}; there are: {known}")


class Container(TokenFormat):
    """The project's own format, which holds the tokens of every codec."""

    name = "container"
    suffixes = (SUFFIX,)

    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        self.check_options(options)
        write(tokens, path)

    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        self.check_options(options)
        return read(path)


class _Source(BaseModel):
    sample_rate: Annotated[int, Field(gt=0)]
    num_samples: Annotated[int, Field(ge=0)]
    channels: Annotated[int, Field(gt=0)] | None = None


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int
    codec: str
    strides: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1, max_length=1024)
    codebook_size: Annotated[int, Field(gt=0, le=2**31 - 1)]
    sample_rate: Annotated[int, Field(gt=0)]
    hop_length: Annotated[int, Field(gt=0)]
    num_samples: Annotated[int, Field(ge=0)]
    channels: Annotated[int, Field(gt=0)]
    weights: str | None = None
    source: _Source | None = None
    segment: Segment | None = None
    loudness: tuple[float, ...] | None = None
    extra: dict[str, StrictBool | StrictInt | StrictFloat | StrictStr] = {}


def header(tokens: CodecTokens) -> str:
    """All but the codes and the scales, as JSON."""
    source = tokens.source
    made = _Header(
        version=VERSION,
        codec=tokens.codec,
        strides=tokens.strides,
        codebook_size=tokens.codebook_size,
        sample_rate=tokens.sample_rate,
        hop_length=tokens.hop_length,
        num_samples=tokens.num_samples,
        channels=tokens.channels,
        weights=tokens.weights,
        source=_Source(**dataclasses.asdict(source)) if source else None,
        segment=tokens.segment,
        loudness=tokens.loudness,
        extra=dict(tokens.extra),
    )
    return made.model_dump_json(exclude_none=True)


def restore(header: str, codes: Callable[[int], Sequence[Any]], scales: Any, where: str) -> CodecTokens:
    """Tokens from what `header` made of them, and the rest.

    Args:
        codes: Given the number of codebooks, the arrays.
        where: They are from, for messages.

    Raises:
        CorruptFile: It does not fit together.
    """
    try:
        made = _Header.model_validate(parse_object(header))
        if made.version != VERSION:
            raise CorruptFile(f"{where} is a container of version {made.version}; this release reads version {VERSION}")
        source = Source(**made.source.model_dump()) if made.source else None
        fields = made.model_dump(exclude={"version", "source", "segment"})
        return CodecTokens(codes=tuple(codes(len(made.strides))), scales=scales, source=source, segment=made.segment, **fields)
    except NotJson as error:
        raise CorruptFile(f"{where} is damaged, or is not what it says: its header {error}") from error
    except (ValidationError, InvalidTokens, ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptFile(f"{where} is damaged, or is not what it says: {reason(error)}") from error


def contents(tokens: CodecTokens) -> bytes:
    """A container, as bytes."""
    kind = np.min_scalar_type(tokens.codebook_size - 1)
    arrays = {f"codes.{number}": np.ascontiguousarray(code.astype(kind)) for number, code in enumerate(tokens.codes)}
    if tokens.scales is not None:
        arrays[SCALES] = tokens.scales
    return save(arrays, metadata={KEY: header(tokens)})


def write(tokens: CodecTokens, path: str | PathLike[str]) -> None:
    """Writes a container; the file appears whole or not at all."""
    made = contents(tokens)
    with replacing(path) as temporary:
        temporary.write_bytes(made)


def read(path: str | PathLike[str]) -> CodecTokens:
    """Reads a container.

    Raises:
        InvalidInput: There is no such file.
        CorruptFile: It is not a container, or what it says does not fit together.
    """
    path = existing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise CorruptFile(f"{path} is a safetensors file, but holds no tokens")
            scales = file.get_tensor(SCALES) if SCALES in file.keys() else None  # noqa: SIM118
            return restore(metadata[KEY], lambda count: [file.get_tensor(f"codes.{k}") for k in range(count)], scales, str(path))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CorruptFile(f"{path} is not a token container, or is damaged: {reason(error)}") from error


def from_bytes(data: bytes, where: str) -> CodecTokens:
    """What `contents` made.

    Args:
        where: They are from, for messages.

    Raises:
        CorruptFile: They are not a container, or do not fit together.
    """
    try:
        arrays = load(data)  # which checks all sizes
        metadata = parse_object(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        return restore(metadata[KEY], lambda count: [arrays[f"codes.{k}"] for k in range(count)], arrays.get(SCALES), where)
    except CorruptFile:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{where} is not a token container, or is damaged: {reason(error)}") from error
