"""The codec trait: the interface of every backend."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from . import checks
from .audio import loudness
from .errors import InvalidInput, InvalidTokens, NotYetImplemented, OtherWeightsNotice
from .pools import MAX_QUEUE, DecoderPool, EncoderPool, PoolSettings, SessionPool
from .sessions import DecoderSession, EncoderSession
from .specs import CodecSpec, Latency, LoadOptions
from .streaming import decode_chunks, encode_chunks
from .tokens import flat
from .tokens.tokens import CodecTokens, longest
from .validation import Latents, Pcm, audio_array

if TYPE_CHECKING:
    from torch import Tensor

    from .torch_backend.module import CodecModule
    from .torch_backend.tensor_tokens import TensorTokens


class SizeOptions(TypedDict, total=False):
    """Options that choose the number of codebooks."""

    bandwidth: float | None
    num_codebooks: int | None


class EncodeOptions(SizeOptions, total=False):
    """Options of `CodecBackend.encode`."""

    normalize_db: float | None


class AudioBackend(ABC):
    """Backend that is loaded before it is used. `load` and `unload` may be called any number of times, from any thread."""

    provider_kind: str

    @property
    @abstractmethod
    def id(self) -> str:
        """Identifier `family:model`."""

    @abstractmethod
    def load(self) -> None:
        """Load the weights, if they are not loaded. The first use does so too."""

    @abstractmethod
    def unload(self) -> None:
        """Free the weights. Open sessions keep theirs until they end; the next use loads again."""

    @property
    @abstractmethod
    def is_loaded(self) -> bool:
        """Tell whether the weights are loaded."""


class CodecBackend(AudioBackend):
    """One model of one codec. Subclasses provide sessions and a lifecycle, from which the other methods follow.

    The constructor does no work; the first use loads the weights.
    """

    provider_kind = "codec"

    streams_per_batch: int | None = None
    """Override of `max_batch_size` for every device; `None` for the device's default.

    The conformance kit sets it so that signals run side by side even where that gains nothing. A backend that overrides
    `max_batch_size` may read it; otherwise the kit tests the batches that the backend chooses.
    """

    def __init__(self, spec: CodecSpec, options: LoadOptions | None = None) -> None:
        self._spec = spec
        self._options = options or LoadOptions()
        self._noticed_weights: set[str] = set()

    @property
    def spec(self) -> CodecSpec:
        """Description of the model."""
        return self._spec

    @property
    def options(self) -> LoadOptions:
        """Options that the codec was loaded with."""
        return self._options

    @classmethod
    def spec_from_weights(cls, spec: CodecSpec, options: LoadOptions) -> CodecSpec:
        """Spec of the model that the config of the weights describes, whose settings may differ from the published ones.

        Args:
            spec: Spec of any model of the family.
            options: Options that name the weights.

        Raises:
            NotYetImplemented: The family supports no such models.
            WeightsUnavailable: The weights are not available, or have no config.
        """
        raise NotYetImplemented(
            f"{spec.family} supports only the models that it lists; load one without architecture='from-weights'"
        )

    @property
    def id(self) -> str:
        repos = [source.repo for source in self.spec.sources if source.repo]
        return f"{self.spec.family}:{repos[0] if repos else self.spec.name}"

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.spec.sample_rate

    @property
    def channels(self) -> int:
        """Channels of the network; a mono codec takes more, as separate streams."""
        return self.spec.channels

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks, of which fewer may be used."""
        return self.spec.num_codebooks

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.spec.frame_rate

    @property
    def preferred_chunk_frames(self) -> int:
        """Frames per push with which a session is fastest, in whole tiles."""
        return self.spec.tile_frames

    @property
    def max_frames_per_step(self) -> int:
        """Best number of frames of one step, over all streams, if the whole input is available; see `offline_tile_frames`."""
        return self.spec.tile_frames

    @property
    def max_batch_size(self) -> int:
        """Number of signals that run side by side on the device; 1 if a batch is no faster than one signal after the other.

        With 1, the results of a batch are bit-identical to those of its items alone.
        """
        return self.streams_per_batch or 1

    @property
    def short_samples(self) -> int:
        """Length in samples up to which a batch is faster than one signal after the other, though `max_batch_size` is 1."""
        return 0

    @property
    def weights_label(self) -> str | None:
        """Label of the weights, as in `CodecTokens.weights`; `None` if it is not known. Loads the weights."""
        return None

    @property
    @abstractmethod
    def device(self) -> str:
        """Device of the model, such as `cpu` or `cuda:0`. Raises `DeviceUnavailable` if it is not available."""

    def encoder_session(
        self,
        channels: int | None = None,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        latency: Latency = "throughput",
        tile_frames: int | None = None,
        as_tensors: bool = False,
    ) -> EncoderSession:
        """Open a session that encodes one signal.

        Args:
            channels: Channels of the audio; those of the codec if `None`.
            bandwidth: As for `encode`.
            num_codebooks: As for `encode`.
            latency: `throughput` for the model's own tiles, which are fastest and bit-identical to `encode`, or `lowest` for
                the shortest. Tokens of shorter tiles are equal up to float32 ties.
            tile_frames: Frames of a tile, instead of `latency`.
            as_tensors: The session gives `TensorTokens` on the model's device. Tensors that it takes are copied there.

        Raises:
            InvalidInput: The channels, the bandwidth or the tile cannot be used.
            NotYetImplemented: The codec does not stream, or gives arrays only.
            CodecError: Loading the model failed.
        """
        channels = self.channels if channels is None else channels
        checks.check_channels(self.spec, channels)
        count = self.spec.codebooks_for(bandwidth, num_codebooks)
        new_session = self.new_tensor_encoder_session if as_tensors else self.new_encoder_session
        return new_session(channels, count, checks.check_tile(self.spec, latency, tile_frames))

    @abstractmethod
    def new_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> EncoderSession:
        """Open a session for checked options; see `encoder_session`."""

    def new_tensor_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> EncoderSession:
        """Open a session with `as_tensors` for checked options; see `encoder_session`."""
        raise self._without_tensors()

    def _without_tensors(self) -> NotYetImplemented:
        return NotYetImplemented(f"streams of {self.spec.name} give arrays only; open them without as_tensors")

    def decoder_session(
        self, *, latency: Latency = "throughput", tile_frames: int | None = None, as_tensors: bool = False
    ) -> DecoderSession:
        """Open a session that decodes one signal.

        Args:
            latency: As for `encoder_session`.
            tile_frames: As for `encoder_session`.
            as_tensors: The session gives audio as tensors `(channels, samples)` on the model's device. It takes `TensorTokens` of
                one signal from any device, or `CodecTokens`.

        Raises:
            InvalidInput: The tile cannot be used.
            NotYetImplemented: The codec does not stream, or gives arrays only.
            CodecError: Loading the model failed.
        """
        self.spec.check_has_tokens()
        new_session = self.new_tensor_decoder_session if as_tensors else self.new_decoder_session
        return new_session(checks.check_tile(self.spec, latency, tile_frames))

    @abstractmethod
    def new_decoder_session(self, tile_frames: int) -> DecoderSession:
        """Open a session for checked options; see `decoder_session`."""

    def new_tensor_decoder_session(self, tile_frames: int) -> DecoderSession:
        """Open a session with `as_tensors` for checked options; see `decoder_session`."""
        raise self._without_tensors()

    def decoder_pool(
        self,
        max_streams: int = 64,
        *,
        latency: Latency = "lowest",
        tile_frames: int | None = None,
        first_tile_frames: int | None = None,
        max_queue: float = MAX_QUEUE,
        as_tensors: bool = False,
    ) -> DecoderPool:
        """Open a pool that decodes many streams, each of one stream of tokens; what each gets is what it gets alone.

        Args:
            max_streams: Most open streams.
            latency: `lowest` for the shortest tiles, `throughput` for the model's own, which are fastest.
            tile_frames: Frames of a tile, instead of `latency`.
            first_tile_frames: Frames of the first tiles of each stream, if these are to be shorter. A pool whose streams have a
                session each ignores it.
            max_queue: Most seconds of audio that a stream may have queued, and most that may wait for the one who listens to it
                in `serving`. A tile may always be.
            as_tensors: Streams give audio as tensors `(channels, samples)` on the model's device. They take `TensorTokens` of one
                stream from any device, or `CodecTokens`.

        Raises:
            InvalidInput: An option cannot be used.
            NotYetImplemented: The codec does not stream, or gives arrays only.
            CodecError: Loading the model failed.
        """
        return self.new_decoder_pool(
            PoolSettings.of(self.spec, max_streams, latency, tile_frames, first_tile_frames, max_queue, as_tensors)
        )

    def new_decoder_pool(self, settings: PoolSettings) -> DecoderPool:
        """Pool for checked options; backends override this where streams can run together."""
        if settings.as_tensors:
            raise self._without_tensors()

        def split(tokens: CodecTokens) -> list[CodecTokens]:
            return list(tokens.parts(settings.tile_frames)) or [tokens]

        return SessionPool(
            self,
            settings,
            partial(self.decoder_session, tile_frames=settings.tile_frames),
            split,
            lambda tokens: tokens.seconds,
            lambda pcm: pcm.shape[1] / self.sample_rate,
        )

    def encoder_pool(
        self,
        max_streams: int = 64,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        latency: Latency = "lowest",
        tile_frames: int | None = None,
        first_tile_frames: int | None = None,
        max_queue: float = MAX_QUEUE,
        as_tensors: bool = False,
    ) -> EncoderPool:
        """Open a pool that encodes many streams, each with the codec's channels; what each gets is what it gets alone.

        Args:
            max_streams: Most open streams.
            bandwidth: As for `encode`.
            num_codebooks: As for `encode`.
            latency: As for `decoder_pool`, as are the others.
            as_tensors: Streams give `TensorTokens` on the model's device. Tensors that they take are copied there.

        Raises:
            InvalidInput: An option cannot be used.
            NotYetImplemented: The codec does not stream, or gives arrays only.
            CodecError: Loading the model failed.
        """
        count = self.spec.codebooks_for(bandwidth, num_codebooks)
        settings = PoolSettings.of(self.spec, max_streams, latency, tile_frames, first_tile_frames, max_queue, as_tensors)
        return self.new_encoder_pool(settings, count)

    def new_encoder_pool(self, settings: PoolSettings, num_codebooks: int) -> EncoderPool:
        """Pool for checked options; see `new_decoder_pool`."""
        if settings.as_tensors:
            raise self._without_tensors()
        length = settings.tile_frames * self.spec.hop_length

        def split(pcm: Any) -> list[Pcm]:
            array = checks.check_piece(self.spec, pcm, self.channels)
            return [array[:, start : start + length].copy() for start in range(0, array.shape[1], length)]

        return SessionPool(
            self,
            settings,
            partial(self.encoder_session, num_codebooks=num_codebooks, tile_frames=settings.tile_frames),
            split,
            lambda pcm: pcm.shape[1] / self.sample_rate,
            lambda tokens: tokens.seconds,
        )

    def encode(
        self,
        pcm: Any,
        sample_rate: int,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        normalize_db: float | None = None,
    ) -> CodecTokens:
        """Encode audio.

        Args:
            pcm: Floating point, nominally -1 … 1, `(channels, samples)` or `(samples,)`.
            sample_rate: Rate in hertz, which must be the codec's; nothing is resampled.
            bandwidth: Kilobits a second and stream, one of `spec.bandwidths`; the default if `None`.
            num_codebooks: Number of codebooks instead of a bandwidth, one of `spec.usable_codebooks`.
            normalize_db: Loudness in LUFS to which the audio is normalized first. Decoding restores the original loudness.

        Raises:
            InvalidInput: The audio, its rate, the bandwidth or the loudness cannot be used.
            EngineNotAvailable: The extra that measures loudness is not installed.
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
        """Encode checked audio, float32 `(channels, samples)`, with the first `num_codebooks` codebooks."""
        return encode_chunks(self, [pcm], pcm.shape[0], num_codebooks=num_codebooks)

    def decode(self, tokens: CodecTokens) -> Pcm:
        """Decode tokens to float32 `(channels, samples)`, as long as the audio that was encoded.

        If the tokens have a loudness, it is restored channel by channel, measured over all decoded audio.

        Raises:
            InvalidTokens: The tokens are not of this model, or incomplete.
            EngineNotAvailable: The extra that measures loudness is not installed.
            CodecError: Loading or running the model failed.
        """
        self.check_decodable(tokens)
        if tokens.loudness is None:
            return self.decode_whole(tokens)
        audio = self.decode_whole(self._untrimmed(tokens))
        decoded = loudness.measure([audio], self.sample_rate, tokens.channels).finish_each()
        audio *= loudness.changes(tokens.loudness, decoded)
        return audio[:, : tokens.num_samples]

    def encode_tensors(
        self, pcm: Any, sample_rate: int, *, bandwidth: float | None = None, num_codebooks: int | None = None
    ) -> TensorTokens:
        """Encode audio, or a batch of equal lengths, on the model's device; the codes stay there.

        Args:
            pcm: Tensor or array as for `encode`, or `(batch, channels, samples)`. It is copied to the device if it is elsewhere.
            sample_rate: As for `encode`.
            bandwidth: As for `encode`.
            num_codebooks: As for `encode`.

        Raises:
            NotYetImplemented: The codec is not made of PyTorch tensors.
            InvalidInput: The audio, its rate or the bandwidth cannot be used.
            CodecError: Loading or running the model failed.
        """
        raise NotYetImplemented(f"{self.spec.name} gives arrays only; call encode without as_tensors")

    def decode_tensors(self, tokens: TensorTokens | CodecTokens) -> Tensor:
        """Decode tokens on the model's device; the audio stays there.

        Returns:
            Float32 `(batch, channels, samples)` for `TensorTokens`, `(channels, samples)` for `CodecTokens`.

        Raises:
            NotYetImplemented: The codec is not made of PyTorch tensors.
            InvalidTokens: The tokens are not of this model, or incomplete.
            CodecError: Loading or running the model failed.
        """
        raise NotYetImplemented(f"{self.spec.name} gives arrays only; call decode without as_tensors")

    @property
    def module(self) -> CodecModule:
        """The model as a PyTorch module, with tensors in and out, latents and gradients.

        Raises:
            NotYetImplemented: The codec has none.
            CodecError: Loading the model failed.
        """
        raise NotYetImplemented(f"{self.spec.name} has no PyTorch module; codecs on TorchCodecBackend have one")

    def decoded_samples(self, tokens: CodecTokens) -> int:
        """Number of samples per channel that the decoder outputs, before those beyond the end of the audio are cut off."""
        return longest(tokens.frames, tokens.hop_length, tokens.segment)

    def _untrimmed(self, tokens: CodecTokens) -> CodecTokens:
        """Copy of the tokens whose `num_samples` reaches to the end of their last frame, without a loudness."""
        return dataclasses.replace(tokens, loudness=None, num_samples=self.decoded_samples(tokens))

    def decoded_loudness(self, tokens: CodecTokens) -> tuple[float, ...]:
        """Loudness in LUFS of each channel of the decoded audio, before the loudness of the tokens is restored.

        Raises:
            InvalidTokens, EngineNotAvailable, CodecError: As `decode`.
        """
        self.check_decodable(tokens)
        return loudness.measure(self._decoded_chunks(self._untrimmed(tokens)), self.sample_rate, tokens.channels).finish_each()

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        """Decode checked tokens to float32 `(channels, samples)`, ignoring their loudness."""
        audio = np.empty((tokens.channels, tokens.num_samples), np.float32)
        start = 0
        for chunk in self._decoded_chunks(tokens):  # copied at once, so that long audio is in memory once
            audio[:, start : start + chunk.shape[1]] = chunk
            start += chunk.shape[1]
        return audio

    def _decoded_chunks(self, tokens: CodecTokens) -> Iterator[Pcm]:
        overridden = type(self).decode_whole is not CodecBackend.decode_whole  # the default calls this method
        return (chunk for chunk, _ in decode_chunks(self, tokens, self.decode_whole if overridden else None))

    def encode_batch(self, items: Sequence[Any], sample_rate: int, **options: Unpack[EncodeOptions]) -> list[CodecTokens]:
        """Encode several signals of any lengths; each gives the tokens that it gives alone.

        Args:
            items: Signals, each as for `encode`.
            sample_rate: Rate in hertz of all of them.
            options: Options of `encode`.

        Raises:
            InvalidInput, EngineNotAvailable, CodecError: As `encode`.
        """
        return [self.encode(item, sample_rate, **options) for item in checks.check_items(items)]

    def decode_batch(self, items: Sequence[CodecTokens]) -> list[Pcm]:
        """Decode the tokens of several signals of any lengths; each gives the audio that it gives alone, up to rounding.

        Raises:
            InvalidInput: `items` is not a list.
            InvalidTokens, EngineNotAvailable, CodecError: As `decode`.
        """
        return [self.decode(item) for item in checks.check_items(items)]

    def encode_latents(self, pcm: Any, sample_rate: int) -> Latents:
        """Encode audio to its latent signal, before any quantization.

        Args:
            pcm: As for `encode`.
            sample_rate: As for `encode`.

        Returns:
            Float32 `(latent_channels, frames)`; the latents of several streams follow each other in the first axis.

        Raises:
            InvalidInput: The audio or its rate cannot be used.
            NotYetImplemented: The codec gives no latents.
            CodecError: Loading or running the model failed.
        """
        raise self._without_latents()

    def decode_latents(self, latents: Any, num_samples: int | None = None) -> Pcm:
        """Decode latents to float32 `(channels, samples)`.

        Args:
            latents: Floating point, as from `encode_latents`.
            num_samples: Samples to return; by default all samples of the frames.

        Raises:
            InvalidInput: The latents or the number cannot be used.
            NotYetImplemented: The codec takes no latents.
            CodecError: Loading or running the model failed.
        """
        raise self._without_latents()

    def _without_latents(self) -> NotYetImplemented:
        return NotYetImplemented(f"{self.spec.name} gives no latents here; use encode and decode")

    def encode_pcm(self, samples: Any, sample_rate: int) -> NDArray[np.uint32]:
        """Encode mono audio `(samples,)` to flat tokens, uint32 `(tokens,)`, codebook after codebook.

        Flat tokens do not store their number of codebooks, so all `num_codebooks` are used.

        Raises:
            InvalidInput, CodecError: As `encode`; also if the model is not mono.
        """
        self.spec.check_has_tokens()
        self._check_mono()
        samples = audio_array(samples)
        if samples.ndim != 1:
            raise InvalidInput(
                f"audio has shape {samples.shape}; flat tokens need mono audio of shape (samples,). Use encode for others"
            )
        return self.encode(samples, sample_rate, num_codebooks=self.spec.usable_codebooks[-1]).flat()

    def decode_tokens(self, tokens: Any, num_codebooks: int) -> Pcm:
        """Decode flat tokens to mono float32 audio `(samples,)`. It covers all frames and is not trimmed.

        Args:
            tokens: Integers `(tokens,)`, codebook after codebook.
            num_codebooks: Number of codebooks of the tokens, one of `spec.usable_codebooks`.

        Raises:
            InvalidTokens: The number of codebooks is not usable, or the tokens are empty, misaligned or out of range.
            InvalidInput: The model is not mono.
            CodecError: Loading or running the model failed.
        """
        self.spec.check_has_tokens()
        self._check_mono()
        if isinstance(num_codebooks, bool) or num_codebooks not in self.spec.usable_codebooks:
            raise InvalidTokens(f"{self.spec.name} has {self.spec.codebook_numbers} codebooks, not {num_codebooks!r}")
        codes = flat.unflatten(tokens, self.spec.strides[:num_codebooks])
        return np.asarray(self.decode(CodecTokens.from_codes(self.spec, codes))[0])

    def _check_mono(self) -> None:
        if self.channels != 1:
            raise InvalidInput(
                f"{self.spec.name} has {self.channels} channels; flat tokens need a mono codec. Use encode and decode instead"
            )

    def check_pcm(self, pcm: Any, sample_rate: int, *, empty: bool = False) -> Pcm:
        """Check audio against this model; return it as float32 `(channels, samples)`.

        Args:
            empty: Accept audio without samples.

        Raises:
            InvalidInput: The audio or its rate cannot be used.
        """
        return checks.check_pcm(self.spec, pcm, sample_rate, empty=empty)

    def check_tokens(self, tokens: CodecTokens, *, part: bool = False) -> None:
        """Raise `InvalidTokens` unless this model can decode the tokens. A `part` may be empty and end within a block."""
        checks.check_tokens(self.spec, tokens)
        if part:
            return
        checks.check_blocks(self.spec, tokens.frames)
        if tokens.num_samples > (most := self.decoded_samples(tokens)):
            raise InvalidTokens(
                f"num_samples of the tokens is {tokens.num_samples}; {self.spec.name} decodes them to at most {most} samples"
            )

    def check_decodable(self, tokens: CodecTokens) -> None:
        """Run `check_tokens` and `check_weights`."""
        self.check_tokens(tokens)
        if tokens.weights is not None:  # the label loads the weights, which tokens without one do not need
            self.check_weights(tokens, self.weights_label)

    def check_weights(self, tokens: CodecTokens, label: str | None) -> None:
        """Warn with `OtherWeightsNotice` if other weights made the tokens, once for each label.

        The label of a file is its sha256, so the same weights in another file or precision have another label.

        Args:
            label: Label of the weights that decode; `None` fits all tokens.

        Raises:
            InvalidTokens: The labels differ, and the option `strict_weights` is set.
        """
        if None in (label, tokens.weights) or label == tokens.weights or tokens.weights in self._noticed_weights:
            return
        text = f"the weights {tokens.weights} made these tokens; {self.spec.name} decodes them with {label}"
        if self.options.strict_weights:
            raise InvalidTokens(
                f"{text}. Load the codec with the former, or without strict_weights if both are the same in another file"
            )
        self._noticed_weights.add(str(tokens.weights))
        warnings.warn(
            f"{text}. Expect other audio, unless both are the same in another file or precision", OtherWeightsNotice, stacklevel=1
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"
