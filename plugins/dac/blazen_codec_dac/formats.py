"""The authors' `.dac` files: a dictionary written by `numpy.save`, which is a pickle. It is read without unpickling.

    {"codes": uint16 (channels, codebooks, frames),
     "metadata": {"input_db": float32 (1,), "original_length", "sample_rate", "chunk_length", "channels": integers,
                  "padding": bool, "dac_version": "1.0.0"}}

Length and rate are those of the recording before resampling. `input_db` is its loudness, to which the authors' tool normalizes
every decoded channel; files written here have one value per channel, which the tool supports. The frames are in windows of
`chunk_length`, encoded as separate signals, with or without padding. Files do not name the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from blazen_codec_core import CodecSpec, CodecTokens, CorruptFile, InvalidInput, InvalidTokens, LoadOptions, Source, TokenFormat
from blazen_codec_core.errors import reason
from blazen_codec_core.files import contents, replacing

from . import restricted_unpickler
from .chunks import Windows
from .specs import AUTHORS, WINDOW_FRAMES, WINDOW_PADDED, DacSpec

VERSION = "1.0.0"
HEAD = b"\x93NUMPY\x01\x00"
PLAIN = (bool, int, float, str)
ONE_OBJECT = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
Count = Annotated[int, Field(strict=True, gt=0, lt=2**40)]


class Metadata(BaseModel):
    """Metadata in the file, with the format's names."""

    model_config = ConfigDict(extra="forbid")

    input_db: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    original_length: Count
    sample_rate: Annotated[int, Field(strict=True, gt=0, le=1_000_000)]
    chunk_length: Count
    channels: Count
    padding: StrictBool
    dac_version: StrictStr


class DacFormat(TokenFormat):
    """Descript's compressed files."""

    name = "dac"
    suffixes = (".dac",)
    option_names: ClassVar[Mapping[str, str]] = {
        "model": "model of a file to read, which files do not name (default: the first that fits, 44.1 kHz first)",
        "input_db": "loudness of the channels in LUFS (default: from the tokens, else measured by decoding them)",
    }

    def __init__(self, specs: tuple[DacSpec, ...] = AUTHORS) -> None:
        self._specs = {spec.name: spec for spec in specs}

    def check(self, spec: CodecSpec, channels: int) -> None:
        self._spec_of(spec.identity)

    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        self.check_options(options)
        if "model" in options:
            raise InvalidInput("option model is only for reading; tokens name their model")
        spec = self._spec_of(tokens.codec)
        if not tokens.frames or not tokens.num_samples:
            raise InvalidTokens("tokens are empty; a .dac file holds at least one frame")
        source = tokens.source or Source(tokens.sample_rate, tokens.num_samples)
        if source.channels not in (None, tokens.channels):
            raise InvalidTokens(f"a .dac file cannot store that {tokens.channels} channels were {source.channels}; use .tokens")
        metadata = {
            "input_db": np.array(_loudness(spec, tokens, options.get("input_db"), loading), np.float32),
            "original_length": source.num_samples,
            "sample_rate": source.sample_rate,
            "chunk_length": tokens.extra.get(WINDOW_FRAMES, tokens.frames),
            "channels": tokens.channels,
            "padding": tokens.extra.get(WINDOW_PADDED, True),
            "dac_version": VERSION,
        }
        artifacts: Any = {"codes": np.stack(tokens.codes, axis=1).astype(np.uint16), "metadata": metadata}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, artifacts)

    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        self.check_options(options)
        data = contents(path)
        asked = self._asked(options.get("model"))
        try:
            codes, metadata = _artifacts(data)
            if asked and (why := _misfit(asked, codes, metadata)):
                raise ValueError(f"it does not fit {asked.name}: {why}")
            spec = asked or self._likeliest(codes, metadata)
            return _tokens(spec, codes, metadata)
        except (ValueError, EOFError, ValidationError, RecursionError) as error:  # InvalidTokens is a ValueError
            raise CorruptFile(f"{path} is not a .dac file, or is damaged: {reason(error)}") from error

    def _spec_of(self, identity: str) -> DacSpec:
        for spec in self._specs.values():
            if spec.identity == identity:
                return spec
        raise InvalidTokens(f"tokens are of {identity}; a .dac file holds {', '.join(self._specs)}. Use .tokens")

    def _asked(self, name: str | None) -> DacSpec | None:
        if name is not None and name not in self._specs:
            raise InvalidInput(f"option model is {name!r}; expected one of {', '.join(self._specs)}")
        return self._specs[name] if name else None

    def _likeliest(self, codes: NDArray[Any], metadata: Metadata) -> DacSpec:
        """Choose the first model that yields enough samples; models are sorted by decreasing rate."""
        reasons = {}
        for spec in self._specs.values():
            if not (why := _misfit(spec, codes, metadata)):
                return spec
            reasons[spec.name] = why
        raise ValueError("; ".join(f"for {name}, {why}" for name, why in reasons.items()))


def _artifacts(data: bytes) -> tuple[NDArray[Any], Metadata]:
    """Read the codes and metadata of a file, and check their types and shapes."""
    found = restricted_unpickler.load(_pickled(data))
    found = found.items[0] if isinstance(found, restricted_unpickler.Array) and found.items else None
    if not isinstance(found, dict) or found.keys() != {"codes", "metadata"} or not isinstance(found["metadata"], dict):
        raise ValueError("it has no codes and metadata")
    codes = found["codes"].values if isinstance(found["codes"], restricted_unpickler.Array) else None
    if codes is None or codes.ndim != 3 or codes.dtype.kind not in "iu" or not codes.size:
        raise ValueError("its codes are not integers (channels, codebooks, frames)")
    plain: dict[str, Any] = {name: value for name, value in found["metadata"].items() if isinstance(value, PLAIN)}
    if isinstance(level := found["metadata"].get("input_db"), restricted_unpickler.Array):
        if level.values is None or level.values.size not in (1, codes.shape[0]):
            raise ValueError("its input_db is neither one number nor one per channel")
        plain["input_db"] = tuple(np.broadcast_to(level.values.reshape(-1), codes.shape[0]).tolist())
    metadata = Metadata.model_validate(plain)
    if metadata.dac_version != VERSION:
        raise ValueError(f"its version is {metadata.dac_version[:20]!r}; expected {VERSION!r}")
    if metadata.channels != codes.shape[0]:
        raise ValueError(f"its metadata has {metadata.channels} channels, but its codes have {codes.shape[0]}")
    return codes, metadata


def _pickled(data: bytes) -> bytes:
    """Return the pickle after NumPy's header, which has a fixed form for a single object."""
    start = len(HEAD) + 2
    end = start + int.from_bytes(data[len(HEAD) : start], "little")
    if not data.startswith(HEAD) or data[start:end].strip() != ONE_OBJECT:
        raise ValueError("it is not a NumPy file of one object")
    return data[end:]


def _windows(spec: DacSpec, codes: NDArray[Any], metadata: Metadata) -> Windows | None:
    """Return the windows of the codes; `None` if they are a single signal."""
    if metadata.padding and metadata.chunk_length >= codes.shape[2]:
        return None
    return Windows(spec.architecture, metadata.chunk_length, metadata.padding)


def _misfit(spec: DacSpec, codes: NDArray[Any], metadata: Metadata) -> str:
    """Return the reason why the codes cannot be of a model; empty if they can."""
    books, frames = codes.shape[1:]
    if books > spec.num_codebooks:
        return f"it has {books} codebooks; expected {spec.codebook_numbers}"
    windows = _windows(spec, codes, metadata)
    made = windows.samples(frames) if windows else frames * spec.hop_length
    length = metadata.original_length * spec.sample_rate // metadata.sample_rate
    if not made or length > made + 1:  # resamplers may round either way
        return f"{frames} frames decode to {made} samples, but the recording has {length}"
    return ""


def _tokens(spec: DacSpec, codes: NDArray[Any], metadata: Metadata) -> CodecTokens:
    source = None
    samples: int | None = metadata.original_length
    if metadata.sample_rate != spec.sample_rate:
        source, samples = Source(metadata.sample_rate, metadata.original_length), None
    extra: dict[str, Any] = {}
    if windows := _windows(spec, codes, metadata):
        extra = {WINDOW_FRAMES: windows.frames, WINDOW_PADDED: windows.padded}
        samples = min(samples or codes.shape[2] * spec.hop_length, windows.samples(codes.shape[2]))
    tokens = CodecTokens.from_codes(spec, [codes[:, book] for book in range(codes.shape[1])], num_samples=samples)
    return dataclasses.replace(tokens, loudness=metadata.input_db, source=source, extra=extra)


def _loudness(spec: DacSpec, tokens: CodecTokens, asked: str | None, loading: LoadOptions | None) -> tuple[float, ...]:
    """Return the loudness per channel in LUFS to which the authors' tool must normalize its output to match these tokens."""
    if asked is not None:
        try:
            level = float(asked)
        except ValueError:
            level = math.nan
        if not math.isfinite(level):
            raise InvalidInput(f"option input_db is {asked!r}; expected a number in LUFS")
        return (level,) * tokens.channels
    if tokens.loudness is not None:
        return tokens.loudness
    from .backend import DacBackend

    loading = (loading or LoadOptions()).model_copy(update={"parts": "decoder"})
    if loading.weights is None and tokens.weights and tokens.weights.startswith("random:"):
        loading = loading.model_copy(update={"weights": tokens.weights})
    return DacBackend(spec, loading).decoded_loudness(tokens)
