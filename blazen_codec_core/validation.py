"""Validation of arguments that needs no model: numbers, arrays, and audio."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import CodecError, InvalidInput, InvalidTokens

Pcm = NDArray[np.float32]
Latents = NDArray[np.float32]
"""A latent signal, `(streams * latent_channels, frames)`."""
MAX_CHANNELS = 32
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000
"""Allowed sample rates in Hz."""
MAX_AMPLITUDE = 1000.0
"""Largest allowed magnitude. Audio is nominally -1 … 1; far larger values are probably unscaled integers."""


def is_int(value: object) -> TypeGuard[int]:
    """Tell whether a value is an integer and not a boolean."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_count(name: str, value: object, least: int, kind: type[CodecError] = InvalidTokens) -> int:
    """Return an integer of at least `least`; raise an error of class `kind` for anything else."""
    if not is_int(value) or value < least:
        raise kind(f"{name} is {value!r}; expected an integer of at least {least}")
    return int(value)


def as_array(values: Any, complaint: str, kind: type[CodecError] = InvalidTokens) -> NDArray[Any]:
    """Convert a value to an array; raise an error of class `kind` that starts with `complaint` if that fails.

    Tensors may be on any device and may require gradients. Only their own methods are used, so torch is not imported.
    """
    try:
        for method in ("detach", "cpu"):
            values = getattr(values, method)() if hasattr(values, method) else values
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except Exception as error:  # whatever the object's own conversion raises
        raise kind(f"{complaint}: {error}") from error


def audio_array(pcm: Any) -> NDArray[Any]:
    """Convert audio to an array; raise `InvalidInput` if that fails."""
    return as_array(pcm, "this is not an array of audio", InvalidInput)


def check_audio(pcm: Any, *, empty: bool = False) -> Pcm:
    """Convert audio to float32 `(channels, samples)`; `empty` allows no samples.

    Raises:
        InvalidInput: The audio is invalid.
    """
    array = audio_array(pcm)
    if array.ndim not in (1, 2):
        batch = ". Encode a batch with encode_batch" if array.ndim == 3 else ""
        raise InvalidInput(f"audio has shape {array.shape}; expected (channels, samples) or (samples,){batch}")
    array = np.atleast_2d(array)
    if array.dtype.kind != "f":
        raise InvalidInput(f"audio has type {array.dtype}; expected floating point, nominally -1 … 1. Scale integers first")
    if not array.size and not empty:
        raise InvalidInput("the audio is empty")
    check_channel_count(array.shape[0])
    peak = max(-array.min(), array.max()) if array.size else 0.0
    if not np.isfinite(peak):
        raise InvalidInput("the audio holds NaN or infinite samples")
    if peak > MAX_AMPLITUDE:
        raise InvalidInput(f"the audio reaches {peak:g}; expected nominally -1 … 1. Did you forget to scale integer samples?")
    return np.ascontiguousarray(array, dtype=np.float32)


def check_channel_count(channels: int, least: int = 0) -> None:
    """Raise `InvalidInput` unless the number of channels is between `least` and `MAX_CHANNELS`."""
    if not least <= channels <= MAX_CHANNELS:
        raise InvalidInput(
            f"audio has {channels} channels; expected {least} to {MAX_CHANNELS}. Is the shape (channels, samples)?"
        )


def check_rate(sample_rate: Any) -> int:
    """Return a valid sample rate in Hz; raise `InvalidInput` for anything else."""
    if not is_int(sample_rate) or not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise InvalidInput(f"sample rate is {sample_rate!r}; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    return int(sample_rate)
