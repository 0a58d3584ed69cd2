"""Streaming of a signal whose whole input is available, in chunks, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from . import cancellation
from .errors import NotYetImplemented
from .sessions import DecoderSession, EncoderSession
from .specs import CodecSpec, Latency
from .tokens.tokens import CodecTokens
from .validation import Pcm

T = TypeVar("T")


class DecoderSessionOptions(TypedDict, total=False):
    """Options of `CodecBackend.decoder_session`."""

    latency: Latency
    tile_frames: int | None
    as_tensors: bool


class EncoderSessionOptions(DecoderSessionOptions, total=False):
    """Options of `CodecBackend.encoder_session`."""

    bandwidth: float | None
    num_codebooks: int | None


class ChunkedCodec(Protocol):
    """Methods that streaming a signal needs; both backends and providers have them."""

    @property
    def spec(self) -> CodecSpec: ...
    @property
    def channels(self) -> int: ...
    @property
    def max_frames_per_step(self) -> int: ...
    @property
    def preferred_chunk_frames(self) -> int: ...
    def encoder_session(self, channels: int | None = None, **options: Unpack[EncoderSessionOptions]) -> EncoderSession: ...
    def decoder_session(self, **options: Unpack[DecoderSessionOptions]) -> DecoderSession: ...


def offline_tile_frames(codec: ChunkedCodec, streams: int) -> int:
    """Tile size in frames for `streams` streams whose whole input is available, so that latency does not matter."""
    tile = codec.spec.tile_frames
    return tile if codec.spec.segment else max(tile, codec.max_frames_per_step // max(1, streams) // tile * tile)


def encode_chunks(
    codec: ChunkedCodec, chunks: Iterable[Pcm], channels: int, **options: Unpack[EncoderSessionOptions]
) -> CodecTokens:
    """Encode one signal in chunks `(channels, samples)` when latency does not matter.

    Args:
        channels: Channels of the audio.
        options: Options of `CodecBackend.encoder_session`.

    Raises:
        NotYetImplemented: The codec has no encoder sessions. No chunk has been consumed then.
    """
    options.setdefault("tile_frames", offline_tile_frames(codec, channels // codec.channels))
    session = codec.encoder_session(channels, **options)
    tokens = [session.push_last(chunk) if is_last else session.push(chunk) for chunk, is_last in _with_end(chunks)]
    return CodecTokens.concat(tokens or [session.finish()])


def decode_chunks(
    codec: ChunkedCodec, tokens: CodecTokens, decode_whole: Callable[[CodecTokens], Pcm] | None = None
) -> Iterator[tuple[Pcm, float]]:
    """Decode tokens in chunks; yield audio `(channels, samples)` and the seconds of audio whose tokens were consumed for it.

    Args:
        decode_whole: Fallback that decodes all tokens at once, if the codec has no decoder sessions.

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
    for part, is_last in _with_end(tokens.parts(max(tile, codec.preferred_chunk_frames))):
        cancellation.check()
        yield session.push_last(part) if is_last else session.push(part), part.seconds


def _with_end(values: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Values, each with whether it is the last one."""
    end: Any = object()
    for value, following in pairwise(chain(values, [end])):
        yield value, following is end
