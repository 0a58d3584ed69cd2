"""The authors' `.ecdc` files.

    4s   "ECDC"        big-endian
    B    0             the version
    I    n             length of the header
    n    {"m": model, "al": samples, "nc": codebooks, "lm": whether the codes are entropy coded}

Each segment follows with a scale (`f`), if the model has scales, and the codes frame by frame, either in 10 bits each or
arithmetically coded with the probabilities of the authors' language model. Segments are byte-aligned.
"""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from blazen_codec_core import CodecSpec, CodecTokens, CorruptFile, InvalidInput, InvalidTokens, LoadOptions, TokenFormat
from blazen_codec_core.errors import reason
from blazen_codec_core.files import contents, replacing
from blazen_codec_core.forks import Anew

from . import arithmetic_coding
from .specs import AUTHORS, EncodecSpec

if TYPE_CHECKING:
    from .language_model import LanguageModel, Predictor

MAGIC, VERSION = b"ECDC", 0
HEAD = struct.Struct("!4sBI")
SCALE = struct.Struct("!f")
LARGEST_HEADER = 1 << 14
TRUTH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


class Header(BaseModel):
    """Header of a file, with the format's names."""

    model_config = ConfigDict(extra="ignore")

    m: StrictStr
    al: Annotated[int, Field(strict=True, gt=0)]
    nc: Annotated[int, Field(strict=True, gt=0)]
    lm: StrictBool


class EcdcFormat(TokenFormat):
    """EnCodec's compressed files, bit-identical to those of the authors' command."""

    name = "ecdc"
    suffixes = (".ecdc",)
    streams = 1
    option_names: ClassVar[Mapping[str, str]] = {
        "lm": "on: save about 25 % more with the authors' language model, which is slow",
        "lm_weights": "weights of the language model: a file, or random:SEED (default: the published ones)",
    }

    def __init__(self, specs: tuple[EncodecSpec, ...] = AUTHORS) -> None:
        self._specs = {spec.identity: spec for spec in specs}
        self._models: dict[tuple[str | None, ...], LanguageModel] = {}
        self._loading = Anew(threading.Lock)

    def check(self, spec: CodecSpec, channels: int) -> None:
        if spec.identity not in self._specs:
            raise InvalidTokens(f"tokens are of {spec.name}; an .ecdc file holds {self._names()}. Use .tokens")
        if channels != spec.channels:
            raise InvalidTokens(
                f"there are {channels} channels; an .ecdc file of {spec.name} holds {spec.channels}. "
                "Mix them down, or use .tokens"
            )

    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        self.check_options(options)
        asked = options.get("lm", "off").lower()
        if asked not in TRUTH:
            raise InvalidInput(f"option lm is {asked!r}; expected on or off")
        if tokens.codec not in self._specs:
            raise InvalidTokens(f"tokens are of {tokens.codec}; an .ecdc file holds {self._names()}. Use .tokens")
        spec = self._specs[tokens.codec]
        self.check(spec, tokens.channels)
        frames = _segment_frames(spec, tokens.num_samples)
        if not tokens.num_samples or sum(frames) != tokens.frames or tokens.num_codebooks not in spec.usable_codebooks:
            raise InvalidTokens(
                f"tokens have {tokens.frames} frames in {tokens.num_codebooks} codebooks; {tokens.num_samples} samples of "
                f"{spec.name} have {sum(frames)} frames in {spec.codebook_numbers} codebooks"
            )
        if (tokens.scales is not None) != _has_scales(spec):
            raise InvalidTokens(f"tokens of {spec.name} in an .ecdc file have {'' if _has_scales(spec) else 'no '}scales")
        model = self._model(spec, options, loading) if TRUTH[asked] else None
        header = Header(m=spec.name, al=tokens.num_samples, nc=tokens.num_codebooks, lm=TRUTH[asked])
        table = np.stack([code[0] for code in tokens.codes], axis=1)
        with replacing(path) as temporary, temporary.open("wb") as file:
            text = _json(header)
            file.write(HEAD.pack(MAGIC, VERSION, len(text)) + text)
            for number, piece in enumerate(np.split(table, np.cumsum(frames)[:-1])):
                if tokens.scales is not None:
                    file.write(SCALE.pack(tokens.scales[0, number]))
                file.write(_compressed(model, piece) if model else _packed(spec, piece))

    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        self.check_options(options)
        data = contents(path)
        try:
            header, at = _header(data)
            spec = next((spec for spec in self._specs.values() if spec.name == header.m), None)
            if spec is None:
                raise ValueError(f"its model is {header.m[:80]!r}; expected {self._names()}")
            _check_claims(spec, header, len(data) - at)
            if not header.lm:
                return _read(spec, header, data, at)
            return _read_coded(spec, header, data, at, self._model(spec, options, loading))
        except (ValueError, EOFError, struct.error, ValidationError) as error:  # InvalidTokens is a ValueError
            raise CorruptFile(f"{path} is not an .ecdc file, or is damaged: {reason(error)}") from error

    def _names(self) -> str:
        return " and ".join(spec.name for spec in self._specs.values())

    def _model(self, spec: EncodecSpec, options: dict[str, str], loading: LoadOptions | None) -> LanguageModel:
        from . import language_model

        if spec.language_model is None:
            raise InvalidInput(f"{spec.name} has no language model; write the file without lm=on")
        loading = loading or LoadOptions()
        key = (spec.name, options.get("lm_weights"), loading.cache_dir)
        with self._loading.own:  # loaded once per model, for any number of files
            if key not in self._models:
                self._models[key] = language_model.load(spec.language_model, spec.name, options.get("lm_weights"), loading)
            return self._models[key]


def _json(header: Header) -> bytes:
    """Serialize the header like Python's `json`, including spaces, so that files are byte-identical."""
    return json.dumps(header.model_dump()).encode()


def _header(data: bytes) -> tuple[Header, int]:
    magic, version, size = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("it does not start with ECDC")
    if version != VERSION:
        raise ValueError(f"its version is {version}; expected {VERSION}")
    if size > min(LARGEST_HEADER, len(data) - HEAD.size):
        raise ValueError(f"its header claims {size} bytes")
    return Header.model_validate_json(data[HEAD.size : HEAD.size + size]), HEAD.size + size


def _has_scales(spec: EncodecSpec) -> bool:
    return bool(spec.segment and spec.segment.normalized)


def _segment_frames(spec: EncodecSpec, samples: int) -> list[int]:
    """Return the frames of each segment of a signal; a single one for models without segments."""
    if spec.segment is None:
        return [-(-samples // spec.hop_length)]
    return [spec.segment.frames_of(n, samples, spec.hop_length) for n in range(spec.segment.count(samples))]


def _check_claims(spec: EncodecSpec, header: Header, size: int) -> None:
    """Compare the sizes in the header with the data, before memory is allocated."""
    if header.nc not in spec.usable_codebooks:
        raise ValueError(f"it claims {header.nc} codebooks; {spec.name} has {spec.codebook_numbers}")
    segments = spec.segment.count(header.al) if spec.segment else 1
    if segments > size:
        raise ValueError(f"it claims {header.al} samples, which {size} bytes cannot hold")
    frames = spec.segment.frames(header.al, spec.hop_length) if spec.segment else -(-header.al // spec.hop_length)
    scales = SCALE.size * segments if _has_scales(spec) else 0
    if header.lm:
        least = scales + arithmetic_coding.fewest_bits(frames * header.nc, spec.codebook_size) / 8
        if least > size:
            raise ValueError(f"it claims {header.al} samples, which {size} bytes cannot hold")
        return
    wanted = scales + sum(_packed_size(spec, header, frames) for frames in _segment_frames(spec, header.al))
    if wanted != size:
        raise ValueError(f"its codes have {size} bytes, but {header.al} samples in {header.nc} codebooks take {wanted}")


def _bits(spec: EncodecSpec) -> int:
    return (spec.codebook_size - 1).bit_length()


def _packed_size(spec: EncodecSpec, header: Header, frames: int) -> int:
    return arithmetic_coding.packed_size(frames * header.nc, _bits(spec))


def _read_coded(spec: EncodecSpec, header: Header, data: bytes, at: int, model: LanguageModel) -> CodecTokens:
    """Encode or decode entropy-coded tokens. The authors' package depends on the number of threads of the process."""
    import torch

    from .language_model import Predictor

    try:
        return _read(spec, header, data, at, lambda: Predictor(model))
    except (ValueError, EOFError) as error:
        if torch.get_num_threads() > 1:
            with suppress(ValueError, EOFError):
                return _read(spec, header, data, at, lambda: Predictor(model, threads=True))
        raise ValueError(
            f"{error}. Or it was coded with other weights of the language model, on another processor, or with another number of "
            "threads. Read it with the same ones; OMP_NUM_THREADS sets the number of threads"
        ) from error


def _read(
    spec: EncodecSpec, header: Header, data: bytes, at: int, predictor: Callable[[], Predictor] | None = None
) -> CodecTokens:
    """Read tokens from offset `at` on; entropy-coded segments have separate predictors."""
    tables, scales = [], []
    for frames in _segment_frames(spec, header.al):
        if _has_scales(spec):
            scales.append(SCALE.unpack_from(data, at)[0])
            at += SCALE.size
        if predictor:
            table, at = _decompressed(predictor(), data, at, frames, header.nc)
        else:
            end = at + _packed_size(spec, header, frames)
            table = arithmetic_coding.unpack(data[at:end], frames * header.nc, _bits(spec)).reshape(frames, header.nc)
            at = end
        tables.append(table)
    if at != len(data):
        raise ValueError(f"it has {len(data) - at} trailing bytes")
    codes = np.concatenate(tables).T
    factors: Any = np.array([scales]) if scales else None
    return CodecTokens.from_codes(spec, list(codes[:, None]), num_samples=header.al, scales=factors)


def _packed(spec: EncodecSpec, table: NDArray[np.int32]) -> bytes:
    return arithmetic_coding.pack(table.reshape(-1), _bits(spec))


def _compressed(model: LanguageModel, table: NDArray[np.int32]) -> bytes:
    """Entropy-code the codes `(frames, codebooks)` of one segment."""
    from .language_model import Predictor

    coder, predictor = arithmetic_coding.ArithmeticEncoder(), Predictor(model)
    before: list[int] | None = None
    for codes in table.tolist():
        ends = arithmetic_coding.shares(predictor.next(before, len(codes))).T
        for own, code in zip(ends, codes, strict=True):
            coder.push(int(own[code - 1]) if code else 0, int(own[code]))
        before = codes
    return coder.finish()


def _decompressed(predictor: Predictor, data: bytes, at: int, frames: int, codebooks: int) -> tuple[NDArray[np.int32], int]:
    """Invert `_compressed`; also return the offset of the next segment. Memory is bounded by the data.

    Raises:
        ValueError: The decoded codes do not reproduce the data, for instance because the probabilities differ.
    """
    decoder, encoder = arithmetic_coding.ArithmeticDecoder(data, at), arithmetic_coding.ArithmeticEncoder()
    before: list[int] | None = None
    found = array("i")
    for _ in range(frames):
        ends = arithmetic_coding.shares(predictor.next(before, codebooks)).T.tolist()
        before = []
        for bounds in ends:
            code = decoder.pull(bounds)
            encoder.push(bounds[code - 1] if code else 0, bounds[code])
            before.append(code)
        found.extend(before)
    if encoder.finish() != data[at : decoder.end]:
        raise ValueError("encoding its codes again gives other data")
    return np.array(found, np.int32).reshape(frames, codebooks), decoder.end
