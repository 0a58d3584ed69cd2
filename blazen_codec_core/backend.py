"""The codec trait: the interface of every backend."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from . import cancellation, checks
from .audio import loudness
from .errors import InvalidInput, InvalidTokens, NotYetImplemented, OtherWeightsNotice
from .specs import CodecSpec, LoadOptions
from .tokens import flat
from .tokens.tokens import CodecTokens, longest
from .validation import Pcm, audio_array


class EncodeOptions(TypedDict, total=False):
    """Options of `CodecBackend.encode`."""

    bandwidth: float | None
    num_codebooks: int | None
    normalize_db: float | None


class SessionOptions(TypedDict, total=False):
    """Options of `CodecBackend.encoder_session`."""

    bandwidth: float | None
    num_codebooks: int | None
    tile_frames: int | None


class AudioBackend(ABC):
    """Something that is loaded before it is used. Both calls may be made any number of times, from any thread."""

    provider_kind: str

    @property
    @abstractmethod
    def id(self) -> str:
        """`family:model`."""

    @abstractmethod
    def load(self) -> None:
        """Makes it ready; nothing if it is. The first use does it too."""

    @abstractmethod
    def unload(self) -> None:
        """Frees the weights. Sessions that are open keep theirs until they end; the next use loads again."""

    @property
    @abstractmethod
    def is_loaded(self) -> bool: ...


class EncoderSession(ABC):
    """Audio in pieces to tokens. Not for several threads at once."""

    @abstractmethod
    def push(self, pcm: Any) -> CodecTokens:
        """The next samples, float32 `(channels, samples)` or `(samples,)`; the tokens that are ready, often none."""

    @abstractmethod
    def finish(self) -> CodecTokens:
        """Ends the signal; the rest of the tokens."""

    @property
    @abstractmethod
    def latency_samples(self) -> int:
        """The most samples that can have been pushed without their tokens having come out."""

    @property
    @abstractmethod
    def first_samples(self) -> int:
        """Number of samples that must have been pushed when the first tokens come out."""


class DecoderSession(ABC):
    """Tokens in pieces to audio. Not for several threads at once."""

    @abstractmethod
    def push(self, tokens: CodecTokens) -> Pcm:
        """The next tokens, in whole groups of frames; the audio that is ready, float32 `(channels, samples)`."""

    @abstractmethod
    def finish(self) -> Pcm:
        """Ends the signal; the rest of the audio. In all there is as much as the tokens say."""

    @property
    @abstractmethod
    def latency_samples(self) -> int:
        """The most audio whose tokens can have been pushed without it having come out, in samples."""


class ChunkedCodec(Protocol):
    """A codec as code sees it that streams through it: a backend, or its provider."""

    @property
    def spec(self) -> CodecSpec: ...
    @property
    def channels(self) -> int: ...
    @property
    def max_frames_per_step(self) -> int: ...
    @property
    def preferred_chunk_frames(self) -> int: ...
    def encoder_session(self, channels: int | None = None, **options: Unpack[SessionOptions]) -> EncoderSession: ...
    def decoder_session(self, *, tile_frames: int | None = None) -> DecoderSession: ...


def offline_tile_frames(codec: ChunkedCodec, streams: int) -> int:
    """Tile size in frames for `streams` streams whose input is all there, so that latency does not matter."""
    tile = codec.spec.tile_frames
    return tile if codec.spec.segment else max(tile, codec.max_frames_per_step // max(1, streams) // tile * tile)


def encode_chunks(codec: ChunkedCodec, chunks: Iterable[Pcm], channels: int, **options: Unpack[SessionOptions]) -> CodecTokens:
    """Encode one signal that comes in chunks `(channels, samples)`, whose latency does not matter.

    Raises:
        NotYetImplemented: The codec has no encoder sessions; no chunk has been taken then.
    """
    options.setdefault("tile_frames", offline_tile_frames(codec, channels // codec.channels))
    session = codec.encoder_session(channels, **options)
    return CodecTokens.concat([*map(session.push, chunks), session.finish()])


def decode_chunks(
    codec: ChunkedCodec, tokens: CodecTokens, decode_whole: Callable[[CodecTokens], Pcm] | None = None
) -> Iterator[tuple[Pcm, float]]:
    """Decode tokens to chunks `(channels, samples)`, each with the seconds of audio whose tokens it took.

    Args:
        decode_whole: Decodes the tokens at once, where the codec has no decoder sessions.

    Raises:
        NotYetImplemented: The codec has no decoder sessions, and there is no `decode_whole`.
    """
    tile = offline_tile_frames(codec, tokens.streams)
    try:
        session = codec.decoder_session(tile_frames=tile)
    except NotYetImplemented:
        if decode_whole is None:
            raise
        yield decode_whole(tokens), tokens.seconds
        return
    for part in tokens.parts(max(tile, codec.preferred_chunk_frames)):
        cancellation.check()
        yield session.push(part), part.seconds
    yield session.finish(), 0.0


class CodecBackend(AudioBackend):
    """One model of one codec. Subclasses provide sessions and a lifecycle; all else follows from those here.

    Constructing one does no work: the first use loads.
    """

    provider_kind = "codec"

    streams_per_batch: int | None = None
    """Number of signals that `max_batch_size` is to be, whatever the device; if not set, what suits the device.

    The conformance kit sets it to have signals run side by side where that gains nothing. A backend with a `max_batch_size` of
    its own may look at it. If it does not, the kit tries batches as the backend cuts them.
    """

    def __init__(self, spec: CodecSpec, options: LoadOptions | None = None) -> None:
        self._spec = spec
        self._options = options or LoadOptions()
        self._noticed: set[str] = set()

    @property
    def spec(self) -> CodecSpec:
        return self._spec

    @property
    def options(self) -> LoadOptions:
        return self._options

    @classmethod
    def spec_from_weights(cls, spec: CodecSpec, options: LoadOptions) -> CodecSpec:
        """The model that the config of the weights describes, where that is of other settings than the published ones.

        Args:
            spec: Any model of the family.

        Raises:
            NotYetImplemented: The family has no such models.
            WeightsUnavailable: The weights cannot be had, or do not say what they are of.
        """
        raise NotYetImplemented(f"{spec.family} has the models that it lists alone: load one without architecture='from-weights'")

    @property
    def id(self) -> str:
        repos = [source.repo for source in self.spec.sources if source.repo]
        return f"{self.spec.family}:{repos[0] if repos else self.spec.name}"

    @property
    def sample_rate(self) -> int:
        return self.spec.sample_rate

    @property
    def channels(self) -> int:
        return self.spec.channels

    @property
    def num_codebooks(self) -> int:
        return self.spec.num_codebooks

    @property
    def frame_rate(self) -> float:
        return self.spec.frame_rate

    @property
    def preferred_chunk_frames(self) -> int:
        """Number of frames per push that a session is fastest with; whole tiles."""
        return self.spec.tile_frames

    @property
    def max_frames_per_step(self) -> int:
        """Number of frames, over all streams, that one step runs best with if all input is there; see `offline_tile_frames`."""
        return self.spec.tile_frames

    @property
    def max_batch_size(self) -> int:
        """Number of signals that run side by side on its device; 1 if a batch is no faster than one after the other.

        Where it is 1, a batch gives what its items give alone, to the bit.
        """
        return self.streams_per_batch or 1

    @property
    def short_samples(self) -> int:
        """Up to how many samples a signal is so short that several share a tile in a batch, whatever `max_batch_size` is."""
        return 0

    @property
    def weights_label(self) -> str | None:
        """Label of the weights that it decodes with, as in `CodecTokens.weights`; `None` if that is not known. Loads them."""
        return None

    @property
    @abstractmethod
    def device(self) -> str:
        """Device that it runs on, such as `cpu` or `cuda:0`; `DeviceUnavailable` if it cannot."""

    @abstractmethod
    def encoder_session(
        self,
        channels: int | None = None,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        tile_frames: int | None = None,
    ) -> EncoderSession:
        """A new stream of audio to encode.

        Args:
            channels: Of the audio; those of the codec if not given.
            bandwidth: As for `encode`.
            num_codebooks: As for `encode`.
            tile_frames: Frames that run at a time. The model's own is fastest, and equal to `encode` to the bit; fewer mean
                less latency, and tokens equal up to float32 ties.
        """

    @abstractmethod
    def decoder_session(self, *, tile_frames: int | None = None) -> DecoderSession:
        """A new stream of tokens to decode; `tile_frames` as for `encoder_session`."""

    def encode(
        self,
        pcm: Any,
        sample_rate: int,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        normalize_db: float | None = None,
    ) -> CodecTokens:
        """Audio to tokens.

        Args:
            pcm: Floating point, nominally -1 … 1, `(channels, samples)` or `(samples,)`.
            sample_rate: In hertz; it must be the codec's own, nothing is resampled here.
            bandwidth: Kilobits a second and stream, where the codec has a choice; one of `spec.bandwidths`.
            num_codebooks: How many codebooks to use, in place of a bandwidth; one of `spec.usable_codebooks`.
            normalize_db: The loudness in LUFS that the audio is brought to first; decoding brings it back.

        Raises:
            InvalidInput: The audio, its rate, the bandwidth or the loudness cannot be used.
            EngineNotAvailable: Measuring loudness needs an extra that is not installed.
            CodecError: Loading or running the model failed.
        """
        pcm = self.check_pcm(pcm, sample_rate)
        count = self.spec.codebooks_for(bandwidth, num_codebooks)
        if normalize_db is None:
            return self.encode_whole(pcm, count)
        level = self._level(pcm, normalize_db)
        return dataclasses.replace(self.encode_whole(pcm * level.factors, count), loudness=level.loudness)

    def _level(self, pcm: Pcm, normalize_db: float) -> loudness.Level:
        """Level that brings checked audio to a loudness of `normalize_db` LUFS."""
        target = loudness.check_target(normalize_db)
        return loudness.Level.to(target, loudness.measure([pcm], self.sample_rate, pcm.shape[0]))

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        """Encode checked audio with the first `num_codebooks` codebooks."""
        return encode_chunks(self, [pcm], pcm.shape[0], num_codebooks=num_codebooks)

    def decode(self, tokens: CodecTokens) -> Pcm:
        """Tokens to float32 `(channels, samples)`, as long as the audio they were made from.

        Tokens that say how loud the audio was give audio that is as loud, channel by channel, measured over all that they
        decode to.

        Raises:
            InvalidTokens: They are not of this model, or incomplete.
            EngineNotAvailable: Measuring loudness needs an extra that is not installed.
            CodecError: Loading or running the model failed.
        """
        self.check_decodable(tokens)
        if tokens.loudness is None:
            return self.decode_whole(tokens)
        audio = self.decode_whole(self._everything(tokens))
        made = loudness.measure([audio], self.sample_rate, tokens.channels).finish_each()
        audio *= loudness.changes(tokens.loudness, made)
        return audio[:, : tokens.num_samples]

    def decoded_samples(self, tokens: CodecTokens) -> int:
        """Number of samples per channel that the decoder makes of tokens, before those beyond the audio's end are cut off."""
        return longest(tokens.frames, tokens.hop_length, tokens.segment)

    def _everything(self, tokens: CodecTokens) -> CodecTokens:
        """The same tokens as if the audio had not ended before their last frame did."""
        return dataclasses.replace(tokens, loudness=None, num_samples=self.decoded_samples(tokens))

    def decoded_loudness(self, tokens: CodecTokens) -> tuple[float, ...]:
        """Loudness in LUFS of each channel of the decoded audio, before it is brought to the loudness that the tokens say.

        Raises:
            InvalidTokens, EngineNotAvailable, CodecError: As `decode`.
        """
        self.check_decodable(tokens)
        return loudness.measure(self._decoded_chunks(self._everything(tokens)), self.sample_rate, tokens.channels).finish_each()

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        """Decode checked tokens, whatever their loudness; `(channels, samples)`."""
        audio = np.empty((tokens.channels, tokens.num_samples), np.float32)
        start = 0
        for chunk in self._decoded_chunks(tokens):  # written at once, so that long audio is in memory once
            audio[:, start : start + chunk.shape[1]] = chunk
            start += chunk.shape[1]
        return audio

    def _decoded_chunks(self, tokens: CodecTokens) -> Iterator[Pcm]:
        overridden = type(self).decode_whole is not CodecBackend.decode_whole  # else it comes back here
        return (chunk for chunk, _ in decode_chunks(self, tokens, self.decode_whole if overridden else None))

    def encode_batch(self, items: Sequence[Any], sample_rate: int, **options: Unpack[EncodeOptions]) -> list[CodecTokens]:
        """Several pieces of audio, of any lengths; each gives what it gives alone. Options are those of `encode`."""
        return [self.encode(item, sample_rate, **options) for item in checks.check_items(items)]

    def decode_batch(self, items: Sequence[CodecTokens]) -> list[Pcm]:
        """Several pieces of tokens, of any lengths; each gives what it gives alone."""
        return [self.decode(item) for item in checks.check_items(items)]

    def encode_pcm(self, samples: Any, sample_rate: int) -> NDArray[np.uint32]:
        """Mono audio `(samples,)` to flat tokens, uint32, codebook after codebook.

        Flat tokens do not say how many codebooks they are of, so it is always all of them, `num_codebooks`.
        """
        self._check_mono()
        samples = audio_array(samples)
        if samples.ndim != 1:
            raise InvalidInput(f"flat tokens are of mono audio of shape (samples,), not {samples.shape}; use encode")
        return self.encode(samples, sample_rate, num_codebooks=self.spec.usable_codebooks[-1]).flat()

    def decode_tokens(self, tokens: Any, num_codebooks: int) -> Pcm:
        """Flat tokens to mono audio `(samples,)`: all that the frames cover, not trimmed.

        Args:
            num_codebooks: That the tokens are of; one of `spec.usable_codebooks`.

        Raises:
            InvalidTokens: The model has no such number of codebooks, or the tokens are none, misaligned or out of range.
        """
        self._check_mono()
        if isinstance(num_codebooks, bool) or num_codebooks not in self.spec.usable_codebooks:
            raise InvalidTokens(f"{self.spec.name} has {self.spec.codebook_numbers} codebooks, not {num_codebooks!r}")
        codes = flat.unflatten(tokens, self.spec.strides[:num_codebooks])
        return np.asarray(self.decode(CodecTokens.from_codes(self.spec, codes))[0])

    def _check_mono(self) -> None:
        if self.channels != 1:
            raise InvalidInput(
                f"flat tokens are of mono audio, {self.spec.name} has {self.channels} channels: use encode, decode"
            )

    def check_pcm(self, pcm: Any, sample_rate: int, *, empty: bool = False) -> Pcm:
        """The audio as float32 `(channels, samples)`; `empty` says whether there may be none."""
        return checks.check_pcm(self.spec, pcm, sample_rate, empty=empty)

    def check_tokens(self, tokens: CodecTokens, *, part: bool = False) -> None:
        """Raises `InvalidTokens` unless this model can decode them; a `part` may be empty and end before a whole block."""
        checks.check_tokens(self.spec, tokens)
        if part:
            return
        checks.check_blocks(self.spec, tokens.frames)
        if tokens.num_samples > (made := self.decoded_samples(tokens)):
            raise InvalidTokens(f"these tokens say {tokens.num_samples} samples, but {self.spec.name} makes {made} of them")

    def check_decodable(self, tokens: CodecTokens) -> None:
        """`check_tokens` and then `check_weights`."""
        self.check_tokens(tokens)
        if tokens.weights is not None:  # else nothing has to be loaded yet
            self.check_weights(tokens, self.weights_label)

    def check_weights(self, tokens: CodecTokens, ours: str | None) -> None:
        """Warns where other weights made tokens than are to decode them.

        The label of a file is its sha256, so the same weights in another file or precision have another.

        Args:
            ours: Label of the weights that decode; an unknown one fits all.

        Raises:
            InvalidTokens: They differ, and the option `strict_weights` is set.
        """
        if None in (ours, tokens.weights) or ours == tokens.weights or tokens.weights in self._noticed:
            return
        text = f"the weights {tokens.weights} made these tokens, and {self.spec.name} decodes them with {ours}"
        if self.options.strict_weights:
            raise InvalidTokens(
                f"{text}: load the codec with the former, or without strict_weights if they are the same in another file"
            )
        self._noticed.add(str(tokens.weights))
        warnings.warn(
            f"{text}: expect other audio, unless they are the same in another file or precision", OtherWeightsNotice, stacklevel=1
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"
