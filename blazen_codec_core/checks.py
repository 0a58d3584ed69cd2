"""Validation against a model: audio that it can encode, and tokens that it can decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from .errors import InvalidInput, InvalidTokens
from .specs import CodecSpec, Latency
from .tokens.tokens import CodecTokens
from .validation import MAX_CHANNELS, Latents, Pcm, as_array, check_audio, check_channel_count, is_int

LONGEST_TILE = 600
"""Seconds of the longest tile; memory grows with it."""


def check_pcm(spec: CodecSpec, pcm: Any, sample_rate: int, *, empty: bool = False) -> Pcm:
    """Convert audio for a model to float32 `(channels, samples)`; `empty` allows no samples.

    Raises:
        InvalidInput: The audio or its sample rate is invalid for this model.
    """
    array = check_audio(pcm, empty=empty)
    check_sample_rate(spec, sample_rate)
    check_channels(spec, array.shape[0])
    return array


def check_sample_rate(spec: CodecSpec, sample_rate: Any) -> None:
    """Raise `InvalidInput` unless this is the model's sample rate."""
    if not is_int(sample_rate) or sample_rate != spec.sample_rate:
        raise InvalidInput(
            f"sample rate is {sample_rate!r}; {spec.name} takes {spec.sample_rate} Hz. "
            "Resample the audio first, for instance with blazen_codec_core.resample"
        )


def check_items(items: Any) -> Sequence[Any]:
    """Items of a batch: a list or a similar sequence, or the first axis of an array or a tensor; `InvalidInput` for others."""
    if hasattr(items, "unbind"):  # a tensor; PyTorch is not imported for this
        return list(items)
    if not isinstance(items, Sequence | np.ndarray) or isinstance(items, str | bytes):
        raise InvalidInput(f"batch is {type(items).__name__}; expected a list")
    return items  # type: ignore[return-value]


def check_piece(spec: CodecSpec, pcm: Any, channels: int) -> Pcm:
    """Convert a chunk of a stream with `channels` channels; it may be empty."""
    array = check_pcm(spec, pcm, spec.sample_rate, empty=True)
    if array.shape[0] != channels:
        raise InvalidInput(f"audio has {array.shape[0]} channels; the session has {channels}")
    return array


def check_begun(samples: int) -> None:
    """Raise `InvalidInput` if a stream of audio ends without any samples."""
    if not samples:
        raise InvalidInput("no audio was pushed; push some before finish")


def check_channels(spec: CodecSpec, channels: int) -> None:
    """Raise `InvalidInput` if the model does not support this number of channels."""
    if not is_int(channels):
        raise InvalidInput(f"channels is {channels!r}; expected an integer")
    if spec.channels == 1:
        check_channel_count(channels, least=1)
    if spec.channels > 1 and channels != spec.channels:
        raise InvalidInput(f"{spec.name} takes {spec.channels} channels, not {channels}")


def check_tokens(spec: CodecSpec, tokens: CodecTokens) -> None:
    """Raise `InvalidTokens` if the tokens do not fit the model, and `NotYetImplemented` if it has none."""
    spec.check_has_tokens()
    if not isinstance(tokens, CodecTokens):
        raise InvalidTokens(
            f"tokens are {type(tokens).__name__}; expected CodecTokens. See CodecTokens.from_codes and decode_tokens"
        )
    if tokens.codec != spec.identity:
        raise InvalidTokens(f"tokens of {tokens.codec} cannot be decoded by {spec.identity}")
    if tokens.num_codebooks not in spec.usable_codebooks:
        raise InvalidTokens(f"{spec.name} has {spec.codebook_numbers} codebooks; these tokens have {tokens.num_codebooks}")
    if tokens.strides != spec.strides[: tokens.num_codebooks]:
        raise InvalidTokens(f"strides are {tokens.strides}, but {spec.name} has {spec.strides}")
    for name in ("codebook_size", "sample_rate", "hop_length", "segment"):
        if getattr(tokens, name) != getattr(spec, name):
            raise InvalidTokens(f"{name} is {getattr(tokens, name)}, but {spec.name} has {getattr(spec, name)}")
    for name in tokens.extra:
        if name not in spec.token_extras:
            raise InvalidTokens(f"tokens have the extra {name}, which {spec.name} does not support")
    if tokens.scales is not None and not (spec.segment and spec.segment.normalized):
        raise InvalidTokens(f"tokens have scales, which {spec.name} does not support")
    if tokens.channels != tokens.streams * spec.channels or tokens.streams > MAX_CHANNELS:
        raise InvalidTokens(f"{tokens.streams} streams cannot be {tokens.channels} channels of {spec.name}")


def check_tile(spec: CodecSpec, latency: Latency, tile_frames: int | None, name: str = "tile_frames") -> int:
    """Frames of the tiles of a session or a pool.

    Args:
        latency: `lowest` for the shortest tiles, `throughput` for the model's own.
        tile_frames: Frames instead of `latency`.
        name: What the caller calls `tile_frames`.

    Raises:
        InvalidInput: The latency is another word, or the model has no tiles of this size.
    """
    if latency not in get_args(Latency):
        raise InvalidInput(f"latency is {latency!r}; expected {' or '.join(map(repr, get_args(Latency)))}")
    group = spec.tile_frames if spec.segment else spec.block_frames
    if tile_frames is None:
        return group if latency == "lowest" else spec.tile_frames
    if not is_int(tile_frames) or tile_frames < 1 or tile_frames % group:
        raise InvalidInput(f"{name} is {tile_frames!r}; {spec.name} takes a positive multiple of {group}")
    if spec.segment and tile_frames != group:
        raise InvalidInput(f"{name} is {tile_frames}; {spec.name} runs in segments of {group} frames, so it takes {group}")
    if tile_frames * spec.hop_length > LONGEST_TILE * spec.sample_rate:
        raise InvalidInput(f"{name} is {tile_frames}; at most {LONGEST_TILE} s of audio are supported")
    return tile_frames


def check_latents(spec: CodecSpec, latents: Any, latent_channels: int) -> Latents:
    """Convert latents for a model to float32 `(streams * latent_channels, frames)`.

    Raises:
        InvalidInput: The latents have another shape or type, or NaN.
    """
    array = as_array(latents, "these are not arrays of latents", InvalidInput)
    rows = f"({latent_channels}, frames)" if spec.channels > 1 else f"({latent_channels} per stream, frames)"
    if array.ndim != 2 or not array.shape[0] or array.shape[0] % latent_channels:
        raise InvalidInput(f"latents have shape {array.shape}; {spec.name} takes {rows}")
    if array.dtype.kind != "f":
        raise InvalidInput(f"latents have type {array.dtype}; expected floating point")
    check_channels(spec, array.shape[0] // latent_channels * spec.channels)
    if not array.shape[1] or array.shape[1] % spec.block_frames:
        raise InvalidInput(f"latents have {array.shape[1]} frames; {spec.name} decodes positive multiples of {spec.block_frames}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InvalidInput("the latents hold NaN or infinite values")
    return array


def check_blocks(spec: CodecSpec, frames: int) -> None:
    """Raise `InvalidTokens` unless `frames` is a positive multiple of the model's block."""
    if not frames or frames % spec.block_frames:
        raise InvalidTokens(f"tokens have {frames} frames; {spec.name} decodes multiples of {spec.block_frames}")
