"""Container format: a safetensors file with one array per codebook, and the other fields as JSON in its metadata.

Codes are stored in the smallest unsigned type for the codebook size. Nothing in the file is executed, and sizes are checked
against the file before data is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from ..errors import CorruptFile, InvalidInput, reason
from ..files import existing, replacing
from ..foreign_json import NotJson, parse_object
from ..specs import Segment

KEY = "blazen_codec"
VERSION = 1
SUFFIX = ".tokens"
SUFFIXES = (SUFFIX, ".safetensors", "")
SCALES = "scales"


@dataclass(frozen=True)
class Contents:
    """Content of a container.

    Attributes:
        fields: All other fields of `CodecTokens`; `source` is a mapping.
        codes: One array per codebook.
        scales: Scales; `None` if the codec has none.
    """

    fields: Mapping[str, Any]
    codes: Sequence[NDArray[Any]]
    scales: NDArray[Any] | None


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


def header_of(fields: Mapping[str, Any]) -> str:
    """Serialize all fields of tokens except codes and scales to JSON; `source` is a mapping."""
    return _Header(version=VERSION, **fields).model_dump_json(exclude_none=True)


def fields_of(header: str, where: str) -> dict[str, Any]:
    """Parse the JSON of `header_of`.

    Args:
        where: Origin for messages.

    Raises:
        CorruptFile: The header is invalid, or has another version.
    """
    try:
        made = _Header.model_validate(parse_object(header))
    except NotJson as error:
        raise CorruptFile(f"{where} is damaged: its header {error}") from error
    except (ValidationError, ValueError, TypeError, OverflowError) as error:
        raise CorruptFile(f"{where} is damaged: {reason(error)}") from error
    if made.version != VERSION:
        raise CorruptFile(f"{where} has container version {made.version}; this release reads version {VERSION}")
    return {**made.model_dump(exclude={"version", "segment"}), "segment": made.segment}


def to_bytes(contents: Contents) -> bytes:
    """Serialize a container."""
    kind = np.min_scalar_type(contents.fields["codebook_size"] - 1)
    arrays = {f"codes.{number}": np.ascontiguousarray(code.astype(kind)) for number, code in enumerate(contents.codes)}
    if contents.scales is not None:
        arrays[SCALES] = contents.scales
    return save(arrays, metadata={KEY: header_of(contents.fields)})


def check_suffix(path: str | PathLike[str]) -> None:
    """Raise `InvalidInput` if a path to write has the suffix of another format."""
    if isinstance(path, str | PathLike) and os.path.splitext(os.fspath(path))[1].lower() not in SUFFIXES:
        raise InvalidInput(
            f"{path} has the suffix of another format; a token container is {SUFFIX}. Formats of plugins are written by "
            "Registry().format_for(path).write(tokens, path)"
        )


def write(data: bytes, path: str | PathLike[str]) -> None:
    """Write a serialized container to a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read(path: str | PathLike[str]) -> Contents:
    """Read a container file.

    Raises:
        InvalidInput: The file does not exist.
        CorruptFile: The file is not a container.
    """
    path = existing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise CorruptFile(f"{path} is a safetensors file without tokens")
            fields = fields_of(metadata[KEY], str(path))
            scales = file.get_tensor(SCALES) if SCALES in file.keys() else None  # noqa: SIM118
            return Contents(fields, [file.get_tensor(f"codes.{book}") for book in range(len(fields["strides"]))], scales)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        from ..audio import container_of  # here, because tokens are mostly read without audio

        with suppress(OSError):
            if found := container_of(path):
                raise CorruptFile(f"{path} is audio ({found.name}), not tokens; encode it to get tokens") from error
        raise CorruptFile(f"{path} is not a token container, or is damaged: {reason(error)}") from error


def from_bytes(data: bytes, where: str) -> Contents:
    """Parse a serialized container.

    Args:
        where: Origin for messages.

    Raises:
        CorruptFile: The data is not a container.
    """
    try:
        arrays = load(data)  # checks all sizes
        metadata = parse_object(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        fields = fields_of(metadata[KEY], where)
        return Contents(fields, [arrays[f"codes.{book}"] for book in range(len(fields["strides"]))], arrays.get(SCALES))
    except CorruptFile:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{where} is not a token container, or is damaged: {reason(error)}") from error
