"""Tokens of audio, with all parameters needed for decoding."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import CorruptFile, InvalidInput, InvalidTokens, reason
from ..specs import Segment
from ..validation import as_array, check_count, is_int
from . import code_arrays, container, flat, notebook
from .packing import Codes, PackedCodes, PackedScales, Scales, check_code, pack_scales, packed_shape

if TYPE_CHECKING:
    from ..specs import CodecSpec

Plain = bool | int | float | str
COUNTS = {"codebook_size": 1, "sample_rate": 1, "hop_length": 1, "num_samples": 0, "channels": 1}
"""Integer fields of tokens, with their minimum."""
LOUDEST = 200.0
"""Largest magnitude of a loudness in LUFS."""


class Decoder(Protocol):
    """A codec, as from `load`."""

    def decode(self, tokens: CodecTokens, /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Source:
    """Properties of the audio before its conversion for the codec, so that decoding can restore them.

    Attributes:
        sample_rate: Sample rate before resampling, in Hz.
        num_samples: Samples per channel before resampling.
        channels: Channels before copying or mixing; `None` for those of the tokens.
    """

    sample_rate: int
    num_samples: int
    channels: int | None = None

    def __post_init__(self) -> None:
        check_count("sample_rate of a source", self.sample_rate, 1)
        check_count("num_samples of a source", self.num_samples, 0)
        if self.channels is not None:
            check_count("channels of a source", self.channels, 1)

    def lasting(self, seconds: float) -> Source:
        """Return the source of a part of so many seconds."""
        return dataclasses.replace(self, num_samples=round(seconds * self.sample_rate))


KINDS: dict[str, Any] = {
    "codec": str,
    "weights": str | None,
    "source": Source | None,
    "segment": Segment | None,
    "extra": Mapping,
}
"""Other fields of tokens, with their types."""


@dataclass(frozen=True, eq=False)
class CodecTokens:
    """Immutable tokens of a piece of audio.

    `len(tokens)` is the number of frames, and `tokens[1.5:3.0]` the part between two times in seconds. `numpy.asarray(tokens)` is
    an int32 array `(codebooks, streams, frames)`, for codecs whose codebooks have one rate.

    Attributes:
        codec: Model `family:name`.
        codes: One int32 array per codebook, `(streams, frames / stride)`. A mono codec has one stream per channel; other codecs
            have one stream.
        strides: Frames per token of each codebook.
        codebook_size: Entries per codebook; every code is below it.
        sample_rate: Sample rate of the codec in Hz.
        hop_length: Samples per frame.
        num_samples: Samples per channel; decoding returns exactly this many.
        channels: Number of channels.
        weights: Weights label, `random:SEED` or `sha256:…`; `None` if unknown.
        source: Original audio, if it was converted for the codec.
        segment: Segmentation, for codecs that encode in segments. Segments have separate frames and overlap in time. A part of an
            ongoing stream has whole segments, of `stride` samples each.
        scales: Divisor of each segment, float32 `(streams, segments)`; `None` if the codec has no scales.
        loudness: Original loudness of each channel in LUFS, if decoding must restore it.
        extra: Further parameters of the codec's decoder, by name.
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
    segment: Segment | None = None
    scales: Scales | None = None
    loudness: tuple[float, ...] | None = None
    extra: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_kinds()
        codes = [check_code(code, number, self.codebook_size) for number, code in enumerate(self.__dict__["codes"])]
        self.__dict__["codes"] = tuple((code.tobytes(), code.shape) for code in codes)
        if len(codes) != len(self.strides) or not codes:
            raise InvalidTokens(f"codes have {len(codes)} codebooks; expected {len(self.strides)} for strides {self.strides}")
        frames = {code.shape[1] * stride for code, stride in zip(codes, self.strides, strict=True)}
        if len(frames) > 1 or len({code.shape[0] for code in codes}) > 1:
            shapes = ", ".join(str(code.shape) for code in codes)
            raise InvalidTokens(f"codebooks have inconsistent shapes {shapes} for strides {self.strides}")
        if self.channels % self.streams:
            raise InvalidTokens(f"{self.channels} channels cannot come from {self.streams} streams")
        if self.segment:
            self._check_segments(self.segment)
        elif not 0 <= self.num_samples <= self.frames * self.hop_length:
            raise InvalidTokens(
                f"num_samples is {self.num_samples}; {self.frames} frames hold 0 to {self.frames * self.hop_length}"
            )
        scales = self.__dict__["scales"]
        if scales is not None:
            self.__dict__["scales"] = pack_scales(scales, (self.streams, len(self.segment_frames) if self.segment else 0))
        if self.loudness is not None:
            self.__dict__["loudness"] = check_loudness(self.loudness, self.channels)
        if not all(isinstance(name, str) and isinstance(value, Plain) for name, value in self.extra.items()):
            raise InvalidTokens(f"extra is {self.extra!r}; expected names with plain values")
        self.__dict__["extra"] = dict(self.extra)

    def _check_kinds(self) -> None:
        for name, least in COUNTS.items():
            self.__dict__[name] = check_count(name, getattr(self, name), least)
        for name, kind in KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise InvalidTokens(f"{name} cannot be {getattr(self, name)!r}")
        if not isinstance(self.strides, Sequence) or not all(is_int(stride) and stride > 0 for stride in self.strides):
            raise InvalidTokens(f"strides are {self.strides!r}; expected positive integers")
        self.__dict__["strides"] = tuple(map(int, self.strides))
        if not isinstance(self.__dict__["codes"], Sequence | np.ndarray):
            raise InvalidTokens(f"codes are {self.__dict__['codes']!r}; expected one array per codebook")

    def _check_segments(self, segment: Segment) -> None:
        if segment.length % self.hop_length or set(self.strides) != {1}:
            raise InvalidTokens(f"segments of {segment.length} samples are not a multiple of frames of {self.hop_length}")
        needed = segment.frames(max(0, self.num_samples), self.hop_length)
        if self.num_samples < 0 or (not self.continues and needed != self.frames):
            raise InvalidTokens(f"codes have {self.frames} frames; {self.num_samples} samples in segments need {needed}")

    @classmethod
    def from_codes(
        cls,
        spec: CodecSpec,
        codes: Any,
        *,
        num_samples: int | None = None,
        weights: str | None = None,
        scales: Any = None,
    ) -> CodecTokens:
        """Make tokens of a model from plain arrays or tensors.

        Args:
            spec: Model of the tokens.
            codes: One array `(streams, frames / stride)` or `(frames / stride,)` per codebook, for all or the first codebooks. Or
                one array for all: `(codebooks, frames)`, `(codebooks, streams, frames)`, or `(1, codebooks, frames)` as returned
                by transformers and Descript's package.
            num_samples: Samples per channel; by default all samples of the frames.
            weights: Weights label, if known.
            scales: Scales `(streams, segments)`, for codecs that have them.

        Raises:
            NotYetImplemented: The codec is continuous.
            InvalidTokens: The arrays do not fit the model, or their axes are ambiguous; the message says how to resolve it.
        """
        spec.check_has_tokens()
        arrays = code_arrays.by_codebook(spec, codes)
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
            num_samples=longest(frames, spec.hop_length, spec.segment) if num_samples is None else num_samples,
            channels=streams * spec.channels,
            weights=weights,
            segment=spec.segment,
            scales=scales,
        )

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks in use."""
        return len(self.__dict__["codes"])

    @property
    def streams(self) -> int:
        """Number of streams: one per channel for a mono codec, else one."""
        return packed_shape(self)[0]

    @property
    def frames(self) -> int:
        """Number of frames, of `hop_length` samples each."""
        return packed_shape(self)[1] * self.strides[0]

    @property
    def continues(self) -> bool:
        """True if audio may continue after these tokens, because all frames or segments are filled."""
        if self.segment is None:
            return self.num_samples == self.frames * self.hop_length
        whole, rest = divmod(self.frames * self.hop_length, self.segment.length)
        return not rest and self.num_samples == whole * self.segment.stride

    @property
    def segment_frames(self) -> list[int]:
        """Number of frames of each segment; a single one for codecs without segments."""
        if self.segment is None:
            return [self.frames]
        if self.continues:
            whole = self.segment.length // self.hop_length
            return [whole] * (self.frames // whole)
        count = self.segment.count(self.num_samples)
        return [self.segment.frames_of(number, self.num_samples, self.hop_length) for number in range(count)]

    @property
    def seconds(self) -> float:
        """Duration of the audio in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def kbps(self) -> float:
        """Bandwidth in kbps of all streams together; 0 without audio."""
        return self.bits / self.seconds / 1000 if self.num_samples else 0.0

    @property
    def bits(self) -> float:
        """Information in bits: log2(codebook_size) per token, and 32 per scale."""
        codes = sum(code.size for code in self.codes) * math.log2(self.codebook_size)
        return codes + (0 if self.scales is None else 32 * self.scales.size)

    def stream(self, number: int) -> CodecTokens:
        """Return a single stream."""
        if not is_int(number) or not 0 <= number < self.streams:
            raise InvalidTokens(f"stream is {number!r}; expected 0 to {self.streams - 1}")
        codes = tuple(code[number : number + 1] for code in self.codes)
        channels = self.channels // self.streams
        loudness = self.loudness and self.loudness[number * channels : (number + 1) * channels]
        scales = None if self.scales is None else self.scales[number : number + 1]
        return dataclasses.replace(self, codes=codes, scales=scales, loudness=loudness, channels=channels)

    def flat(self, dtype: DTypeLike = np.uint32) -> NDArray[Any]:
        """Return the tokens of a single stream, codebook after codebook, `(tokens,)`.

        Args:
            dtype: Integer type. PyTorch's `nn.Embedding` takes `numpy.int64`, and no `uint32`.

        Raises:
            InvalidTokens: There are several streams; take one with `stream`.
        """
        if self.streams != 1:
            raise InvalidTokens(f"tokens have {self.streams} streams; flat tokens hold one. Use .stream(0).flat() and so on")
        return flat.flatten([code[0] for code in self.codes]).astype(dtype, copy=False)

    def __len__(self) -> int:
        return self.frames

    __iter__: ClassVar[None] = None
    """Tokens are no sequence of something; `codes` has the arrays."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if len(set(self.strides)) > 1:
            raise InvalidTokens(
                f"codebooks with strides {self.strides} have different lengths and make no array; use codes, flat or a layout"
            )
        return np.stack(self.codes).astype(np.int32 if dtype is None else dtype)

    def __getitem__(self, part: slice) -> CodecTokens:
        """Return the part between two times in seconds, such as `tokens[1.5:3.0]`, at the nearest bounds of `crop_unit`.

        Consecutive parts join to the whole with `concat`. Negative times count from the end.

        Raises:
            InvalidInput: This is no slice of seconds; frames are cut out with `crop`.
        """
        bounds = (part.start, part.stop) if isinstance(part, slice) and part.step is None else ()
        given = [bound for bound in bounds if bound is not None]
        if (
            not bounds
            or not all(isinstance(bound, Real) and math.isfinite(bound) for bound in given)
            or (given and all(map(is_int, given)))
        ):
            raise InvalidInput(f"{part!r} is no slice of seconds such as tokens[1.5:3.0]; crop(start, frames) cuts out frames")
        end = len(self.segment_frames) if self.segment else self.frames // self.crop_unit
        first, last = (default if at is None else self._unit_at(at, end) for at, default in zip(bounds, (0, end), strict=True))
        cut = self._cut(first, max(first, last) if last < end else None, self.crop_unit)
        is_whole = cut.num_samples == self.num_samples
        return cut if is_whole or cut.source is None else dataclasses.replace(cut, source=cut.source.lasting(cut.seconds))

    def _unit_at(self, seconds: float, end: int) -> int:
        """Return the unit of `crop_unit` that begins nearest to a time; `end` for the end."""
        unit = self.segment.stride if self.segment else self.crop_unit * self.hop_length
        whole = self.segment_frames.count(self.crop_unit) if self.segment else end
        seconds += self.seconds if seconds < 0 else 0
        number = min(max(0, round(seconds * self.sample_rate / unit)), whole)
        return end if abs(self.seconds - seconds) < abs(number * unit / self.sample_rate - seconds) else number

    @classmethod
    def concat(cls, parts: Iterable[CodecTokens]) -> CodecTokens:
        """Concatenate consecutive parts of a stream, such as the results of a session.

        Raises:
            InvalidTokens: There are no parts, or they do not belong together.
        """
        parts = list(parts) if isinstance(parts, Iterable) else [parts]
        if not all(isinstance(part, CodecTokens) for part in parts):
            raise InvalidTokens("only CodecTokens can be concatenated")
        if not parts:
            raise InvalidTokens("there are no tokens to concatenate")
        first = parts[0]
        ended = False
        for part in parts:
            first.check_joins(part)
            if ended and (part.num_samples or (first.segment and part.frames)):
                raise InvalidTokens("a part that is not full is followed by more audio; the parts are separate recordings")
            ended = ended or not part.continues
        codes = tuple(np.concatenate(codes, axis=1) for codes in zip(*(part.codes for part in parts), strict=True))
        scales = None if first.scales is None else np.concatenate([part.scales for part in parts], axis=1)
        samples = sum(part.num_samples for part in parts)
        source = first.source
        if source and source == source.lasting(first.seconds):  # of this part alone, not of the whole
            source = source.lasting(samples / first.sample_rate)
        return dataclasses.replace(first, codes=codes, scales=scales, num_samples=samples, source=source)

    def parts(self, frames: int) -> Iterator[CodecTokens]:
        """Split tokens into parts of at most `frames` frames; inverse of `concat`.

        If segments overlap by much, the last two are both short. They stay together, even if the part exceeds `frames`.

        Args:
            frames: A multiple of every stride, and of a segment's frames.
        """
        unit = self.crop_unit
        if not is_int(frames) or frames < 1 or frames % unit:
            raise InvalidTokens(f"frames is {frames!r}; expected a positive multiple of {unit}")
        most = frames // unit
        units = self.segment_frames if self.segment else [unit] * (self.frames // unit)
        whole = units.count(unit)
        starts = list(range(0, max(whole, 1), most))
        if starts[-1] < whole and len(units) - starts[-1] > most:
            starts.append(whole)
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            yield self._cut(start, end, unit)

    def crop(self, start: int, frames: int) -> CodecTokens:
        """Return `frames` frames from frame `start` on, or as many as there are.

        Args:
            start: A multiple of `crop_unit`, up to the last whole unit.
            frames: A positive multiple of `crop_unit`.

        Raises:
            InvalidTokens: The numbers are no such multiples, or `start` is beyond the last whole unit.
        """
        unit = self.crop_unit
        whole = self.segment_frames.count(unit) if self.segment else self.frames // unit
        if not is_int(start) or not is_int(frames) or start < 0 or frames < 1 or start % unit or frames % unit:
            raise InvalidTokens(f"start is {start!r} and frames {frames!r}; expected multiples of {unit}")
        first, last = start // unit, (start + frames) // unit
        if first > max(whole - 1, 0):
            raise InvalidTokens(f"start is {start}; tokens of {self.frames} frames have {whole} units of {unit}")
        if first == 0 and self.frames <= frames:
            return self
        return self._cut(first, min(last, whole), unit)

    @property
    def crop_unit(self) -> int:
        """Frames that only make sense together: the least common multiple of the strides, or a segment."""
        return self.segment.length // self.hop_length if self.segment else math.lcm(*self.strides)

    def _cut(self, first: int, last: int | None, unit: int) -> CodecTokens:
        """Return units `first` to `last` of `unit` frames, which are whole; `last` of `None` is the end."""
        samples = self.segment.stride if self.segment else unit * self.hop_length
        codes = tuple(
            code[:, first * unit // stride : None if last is None else last * unit // stride]
            for code, stride in zip(self.codes, self.strides, strict=True)
        )
        left = max(0, self.num_samples - first * samples)
        return dataclasses.replace(
            self,
            codes=codes,
            scales=None if self.scales is None else self.scales[:, first:last],
            num_samples=left if last is None else min((last - first) * samples, left),
        )

    def check_joins(self, other: CodecTokens) -> None:
        """Raise `InvalidTokens` if `other` has another model, or another number of streams or codebooks."""
        shared = ("codec", "strides", "codebook_size", "sample_rate", "hop_length", "channels", "streams", "segment", "loudness")
        for name in (*shared, "extra"):
            if getattr(self, name) != getattr(other, name):
                raise InvalidTokens(
                    f"{name} differs: {getattr(self, name)!r} and {getattr(other, name)!r} cannot be concatenated"
                )
        if (self.scales is None) != (other.scales is None):
            raise InvalidTokens("only some parts have scales, so they cannot be concatenated")

    @property
    def fields(self) -> dict[str, Any]:
        """All fields except codes and scales, as JSON values."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("codes", "scales", "source", "extra")]
        source = dataclasses.asdict(self.source) if self.source else None
        return {**{name: getattr(self, name) for name in names}, "source": source, "extra": dict(self.extra)}

    @classmethod
    def restored(cls, contents: container.Contents, where: str) -> CodecTokens:
        """Make tokens from `fields` and arrays.

        Args:
            contents: Content of a container.
            where: Origin for messages.

        Raises:
            CorruptFile: The fields and arrays are inconsistent.
        """
        fields = dict(contents.fields)
        try:
            source = fields.pop("source")
            fields["source"] = Source(**source) if source else None
            return cls(codes=tuple(contents.codes), scales=contents.scales, **fields)
        except (InvalidTokens, ValueError, TypeError, KeyError, OverflowError) as error:
            raise CorruptFile(f"{where} is damaged: {reason(error)}") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write a container file atomically.

        Args:
            path: Path with the suffix `.tokens`, `.safetensors`, or none.

        Raises:
            InvalidInput: The suffix is of another format, or the file cannot be written.
        """
        container.check_suffix(path)
        container.write(self.to_bytes(), path)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> CodecTokens:
        """Read a container file.

        Raises:
            CorruptFile: The file is not a container.
        """
        return cls.restored(container.read(path), str(path))

    def to_bytes(self) -> bytes:
        """Serialize to the bytes of a container file."""
        return container.to_bytes(container.Contents(self.fields, self.codes, self.scales))

    @classmethod
    def from_bytes(cls, data: bytes) -> CodecTokens:
        """Parse the bytes of a container file.

        Args:
            data: Result of `to_bytes`, as `bytes`, `bytearray` or `memoryview`.

        Raises:
            InvalidInput: `data` is not bytes.
            CorruptFile: `data` is not a container, or is inconsistent.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidInput(f"data is {type(data).__name__}; expected bytes")
        return cls.from_container(bytes(data), "this")

    @classmethod
    def from_container(cls, data: bytes, where: str) -> CodecTokens:
        """Parse the bytes of a container file, called `where` in messages."""
        return cls.restored(container.from_bytes(data, where), where)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CodecTokens):
            return NotImplemented
        mine, theirs = ({f.name: getattr(t, f.name) for f in dataclasses.fields(t)} for t in (self, other))
        arrays, others = ([*t.codes, *([] if t.scales is None else [t.scales])] for t in (self, other))
        for fields in (mine, theirs):
            del fields["codes"], fields["scales"]
        return mine == theirs and len(arrays) == len(others) and all(map(np.array_equal, arrays, others))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lengths = [self.frames // stride for stride in self.strides]
        count = f"{lengths[0]}" if len(set(lengths)) == 1 else " + ".join(map(str, lengths))
        books = f"{self.num_codebooks} codebook{'s' if self.num_codebooks > 1 else ''}"
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        return f"<CodecTokens {self.codec}, {self.seconds:.2f} s, {self.kbps:.2f} kbps{streams}, {books} of {count} tokens>"

    def _repr_html_(self) -> str:
        return notebook.as_html(self)

    def play(self, codec: Decoder) -> notebook.Player:
        """Decode the tokens; a notebook shows the result as a player.

        Args:
            codec: Codec of the tokens, as from `load`.

        Raises:
            InvalidTokens, EngineNotAvailable, CodecError: As its `decode`.
        """
        return notebook.Player(codec.decode(self), self.sample_rate)


CodecTokens.codes = PackedCodes()  # type: ignore[assignment]
CodecTokens.scales = PackedScales()  # type: ignore[assignment]


def longest(frames: int, hop_length: int, segment: Segment | None) -> int:
    """Return the most samples that `frames` frames can represent."""
    return segment.samples(frames, hop_length) if segment else frames * hop_length


def check_loudness(loudness: Any, channels: int) -> tuple[float, ...]:
    array = as_array(loudness, "loudness cannot be an array")
    if array.shape != (channels,) or array.dtype.kind not in "iuf" or not (np.abs(array) <= LOUDEST).all():
        raise InvalidTokens(f"loudness is {loudness!r}; expected a number in LUFS for each of {channels} channels")
    return tuple(map(float, array))
