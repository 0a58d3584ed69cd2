"""The tokens of a piece of audio, with all that decoding them needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import layouts
from .errors import InvalidTokens

if TYPE_CHECKING:
    from .specs import CodecSpec

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Source:
    """The audio as it was before it was resampled for the codec, so that decoding can undo that."""

    sample_rate: int
    num_samples: int


class _Packed:
    """Keeps the codes as bytes, and makes read-only arrays of them when they are asked for.

    A stream leaves many small parts behind. As arrays they would lie between the large ones that a network allocates and frees,
    and keep the heap from reusing that room: an hour of parts would cost gigabytes. Small bytes have a place of their own.
    """

    def __get__(self, tokens: CodecTokens, owner: type) -> tuple[Codes, ...]:
        packed: tuple[tuple[bytes, tuple[int, int]], ...] = tokens.__dict__["codes"]
        return tuple(np.frombuffer(data, np.int32).reshape(shape) for data, shape in packed)

    def __set__(self, tokens: CodecTokens, codes: Sequence[Any]) -> None:
        tokens.__dict__["codes"] = codes


@dataclass(frozen=True, eq=False)
class CodecTokens:
    """Tokens, immutable.

    Attributes:
        codec: `family:name` of the model that made them.
        codes: One int32 array a codebook, `(streams, frames / stride)`. Streams are the channels of the audio where
            the codec itself is mono, otherwise there is one.
        strides: Frames a token of each codebook covers.
        codebook_size: Entries a codebook; every code is below it.
        sample_rate: Of the codec, in hertz.
        hop_length: Samples a frame.
        num_samples: Samples a channel that the tokens stand for; decoding returns exactly these.
        channels: Of the audio.
        weights: Which weights made them, where that is known: `random:SEED` or `sha256:…`.
        source: The audio before resampling, where it was resampled.
    """

    codec: str
    codes: tuple[Codes, ...]
    strides: tuple[int, ...]
    codebook_size: int
    sample_rate: int
    hop_length: int
    num_samples: int
    channels: int = 1
    weights: str | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        codes = [_checked(code, number, self.codebook_size) for number, code in enumerate(self.__dict__["codes"])]
        self.__dict__["codes"] = tuple((code.tobytes(), code.shape) for code in codes)
        if len(codes) != len(self.strides) or not codes:
            raise InvalidTokens(f"{len(codes)} codebooks were given for {len(self.strides)} strides {self.strides}")
        frames = {code.shape[1] * stride for code, stride in zip(codes, self.strides, strict=True)}
        if len(frames) > 1 or len({code.shape[0] for code in codes}) > 1:
            shapes = ", ".join(str(code.shape) for code in codes)
            raise InvalidTokens(f"codebooks with strides {self.strides} do not line up; their shapes are {shapes}")
        if self.channels % self.streams:
            raise InvalidTokens(f"{self.channels} channels cannot come from {self.streams} streams")
        if not 0 <= self.num_samples <= self.frames * self.hop_length:
            raise InvalidTokens(f"num_samples is {self.num_samples} for {self.frames} frames of {self.hop_length} samples")

    @classmethod
    def from_codes(
        cls, spec: CodecSpec, codes: Sequence[Any], *, num_samples: int | None = None, weights: str | None = None
    ) -> CodecTokens:
        """Tokens of a model from bare arrays, `(streams, frames / stride)` or `(frames / stride,)` each.

        Args:
            num_samples: Of the audio; all that the frames cover if not given.

        Raises:
            InvalidTokens: The arrays do not fit the model.
        """
        arrays = [np.atleast_2d(np.asarray(code)) for code in codes]
        streams = arrays[0].shape[0] if arrays else 0
        strides = spec.strides[: len(arrays)]
        frames = arrays[0].shape[-1] * strides[0] if arrays else 0
        return cls(
            codec=spec.identity,
            codes=tuple(arrays),
            strides=strides,
            codebook_size=spec.codebook_size,
            sample_rate=spec.sample_rate,
            hop_length=spec.hop_length,
            num_samples=frames * spec.hop_length if num_samples is None else num_samples,
            channels=streams * spec.channels,
            weights=weights,
        )

    @property
    def num_codebooks(self) -> int:
        return len(self.codes)

    @property
    def streams(self) -> int:
        return int(self.codes[0].shape[0])

    @property
    def frames(self) -> int:
        """Frames of the finest resolution, `hop_length` samples each."""
        return int(self.codes[0].shape[1] * self.strides[0])

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def bits(self) -> float:
        """What the tokens carry, at log2(codebook_size) bits each."""
        return sum(code.size for code in self.codes) * math.log2(self.codebook_size)

    def stream(self, number: int) -> CodecTokens:
        """One stream alone."""
        if not 0 <= number < self.streams:
            raise InvalidTokens(f"there is no stream {number}; there are {self.streams}")
        codes = tuple(code[number : number + 1] for code in self.codes)
        return dataclasses.replace(self, codes=codes, channels=self.channels // self.streams)

    def flat(self) -> NDArray[np.uint32]:
        """The tokens of one stream, uint32, codebook after codebook.

        Raises:
            InvalidTokens: There are several streams; take one with `stream`.
        """
        if self.streams != 1:
            raise InvalidTokens(f"flat tokens are of one stream, there are {self.streams}: use .stream(0).flat() and so on")
        return layouts.flatten([code[0] for code in self.codes])

    @classmethod
    def concat(cls, parts: Iterable[CodecTokens]) -> CodecTokens:
        """The parts of one stream of audio on end, such as a session returned.

        Raises:
            InvalidTokens: There are none, or they do not belong together.
        """
        parts = list(parts)
        if not parts:
            raise InvalidTokens("there are no tokens to join")
        first = parts[0]
        total = frames = 0
        for part in parts:
            first.check_joins(part)
            if part.num_samples and total < frames * first.hop_length:
                raise InvalidTokens("audio goes on after a part that its audio did not fill: these are separate recordings")
            total, frames = total + part.num_samples, frames + part.frames
        codes = tuple(np.concatenate(codes, axis=1) for codes in zip(*(part.codes for part in parts), strict=True))
        return dataclasses.replace(first, codes=codes, num_samples=total)

    def parts(self, frames: int) -> Iterator[CodecTokens]:
        """The tokens in pieces of at most so many frames, the inverse of `concat`; `frames` is a multiple of every stride."""
        if frames < 1 or any(frames % stride for stride in self.strides):
            raise InvalidTokens(f"pieces of {frames} frames cut tokens of strides {self.strides} apart")
        for start in range(0, max(self.frames, 1), frames):
            codes = tuple(c[:, start // s : (start + frames) // s] for c, s in zip(self.codes, self.strides, strict=True))
            samples = min(frames * self.hop_length, max(0, self.num_samples - start * self.hop_length))
            yield dataclasses.replace(self, codes=codes, num_samples=samples)

    def check_joins(self, other: CodecTokens) -> None:
        """Raises `InvalidTokens` unless `other` is of the same model and has as many streams and codebooks."""
        for name in ("codec", "strides", "codebook_size", "sample_rate", "hop_length", "channels", "streams"):
            if getattr(self, name) != getattr(other, name):
                raise InvalidTokens(f"{name} differs: {getattr(self, name)!r} and {getattr(other, name)!r} cannot be joined")

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a container file, whole or not at all."""
        from . import container

        container.write(self, path)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> CodecTokens:
        """Reads a container file.

        Raises:
            CorruptFile: It is none.
        """
        from . import container

        return container.read(path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CodecTokens):
            return NotImplemented
        mine, theirs = ({f.name: getattr(t, f.name) for f in dataclasses.fields(t)} for t in (self, other))
        codes, other_codes = mine.pop("codes"), theirs.pop("codes")
        return mine == theirs and len(codes) == len(other_codes) and all(map(np.array_equal, codes, other_codes))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shapes = " ".join(str(code.shape[1]) for code in self.codes)
        streams = f"{self.streams} streams, " if self.streams > 1 else ""
        return f"<CodecTokens {self.codec}, {self.seconds:.2f} s, {streams}{shapes} tokens>"


CodecTokens.codes = _Packed()  # type: ignore[assignment]


def _checked(code: Any, number: int, size: int) -> Codes:
    array = np.asarray(code)
    if array.ndim != 2:
        raise InvalidTokens(f"codebook {number} has shape {array.shape}; it must be (streams, frames)")
    if array.dtype.kind not in "iu":
        raise InvalidTokens(f"codebook {number} holds {array.dtype}; tokens are integers")
    if not array.shape[0]:
        raise InvalidTokens(f"codebook {number} has no streams")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise InvalidTokens(f"codebook {number} has a token outside 0 … {size - 1}")
    return array.astype(np.int32)
