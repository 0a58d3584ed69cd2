"""Checks of tensors that callers pass in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import check_channels, check_piece, check_sample_rate
from ..errors import InvalidInput, InvalidTokens
from ..nn.layers.quantization import VectorQuantizer
from ..specs import CodecSpec
from ..validation import MAX_AMPLITUDE, is_int

Lengths = Sequence[int] | Tensor | None
"""Samples of each signal of a batch; `None` if all are as long as the tensor."""


def described(value: object) -> str:
    """Description of an argument for messages."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"of type {type(value).__name__}"


def check_device(x: Tensor, device: torch.device, name: str) -> None:
    """Raise `InvalidInput` if a tensor is on another device than the module."""
    if x.device != device:
        raise InvalidInput(f"{name} on {x.device}, and the module is on {device}; move one to the other")


def check_lengths(lengths: Lengths, batch: int, longest: int) -> tuple[int, ...]:
    """Lengths of a batch as numbers; raise `InvalidInput` if they do not fit."""
    if lengths is None:
        return (longest,) * batch
    values = tuple(lengths.tolist()) if isinstance(lengths, Tensor) else tuple(lengths)
    if len(values) != batch:
        raise InvalidInput(f"there are {len(values)} lengths for {batch} signals; give one for each")
    for value in values:
        if not is_int(value) or not 1 <= value <= longest:
            raise InvalidInput(f"a length is {value!r}; expected an integer from 1 to {longest}")
    return tuple(map(int, values))


def check_shape(name: str, x: Any, channels: int, device: torch.device, time: str) -> None:
    """Raise `InvalidInput` unless `x` is a floating-point tensor `(batch, channels, time)` on the device."""
    if not isinstance(x, Tensor) or x.dim() != 3 or not x.is_floating_point() or x.shape[1] != channels:
        raise InvalidInput(f"{name} are {described(x)}; expected a floating-point tensor (batch, {channels}, {time})")
    check_device(x, device, f"{name} are")
    if not x.shape[0] or not x.shape[2]:
        raise InvalidInput(f"{name} are empty, of shape {tuple(x.shape)}")


def check_signals(spec: CodecSpec, pcm: Any, sample_rate: Any, device: torch.device) -> Tensor:
    """Audio of any shape that `encode` takes, or a batch, as float32 `(batch, channels, samples)` on the device.

    Raises:
        InvalidInput: The audio or its rate cannot be used.
    """
    check_sample_rate(spec, sample_rate)
    try:
        x = torch.as_tensor(pcm).detach()
    except Exception as error:  # whatever the object's own conversion raises
        raise InvalidInput(f"this is not an array of audio: {error}") from error
    if x.dim() not in (1, 2, 3) or not x.is_floating_point():
        raise InvalidInput(f"audio is {described(x)}; expected floating point, (batch, channels, samples) or fewer axes")
    x = x.to(device, torch.float32).reshape((1,) * (3 - x.dim()) + tuple(x.shape))
    if not x.numel():
        raise InvalidInput(f"the audio is empty, of shape {tuple(x.shape)}")
    check_channels(spec, x.shape[1])
    check_finite(x)
    return x


def check_tensor_piece(spec: CodecSpec, pcm: Any, channels: int, device: torch.device) -> Tensor:
    """Chunk of a stream of `channels` channels, which may be empty, as a copy `(channels, samples)` in float32 on the device.

    Raises:
        InvalidInput: The audio cannot be used.
    """
    if not isinstance(pcm, Tensor):
        return torch.tensor(check_piece(spec, pcm, channels), device=device)
    if pcm.dim() not in (1, 2) or not pcm.is_floating_point():
        raise InvalidInput(f"audio is {described(pcm)}; expected floating point, (channels, samples) or (samples,)")
    x = (pcm[None] if pcm.dim() == 1 else pcm).detach().to(device, torch.float32, copy=True)
    if x.shape[0] != channels:
        raise InvalidInput(f"audio has {x.shape[0]} channels; the stream has {channels}")
    if x.numel():
        check_finite(x)
    return x


def check_finite(x: Tensor) -> None:
    """Raise `InvalidInput` if audio holds NaN, or values that are no samples."""
    peak = float(x.detach().abs().max())
    if not peak <= MAX_AMPLITUDE:
        raise InvalidInput(f"the audio reaches {peak:g}; expected finite samples, nominally -1 … 1")


def check_codes(
    quantizers: Iterable[VectorQuantizer], spec: CodecSpec, codes: Sequence[Tensor], device: torch.device
) -> list[Tensor]:
    """Codes of the first codebooks in int64.

    Raises:
        InvalidTokens: They do not fit the codebooks, or are on another device.
    """
    indices, quantizers = list(codes), list(quantizers)
    if not 1 <= len(indices) <= len(quantizers):
        raise InvalidTokens(f"there are codes of {len(indices)} codebooks; {spec.name} has {len(quantizers)}")
    rows = frames = 0
    for number, (code, quantizer) in enumerate(zip(indices, quantizers, strict=False)):
        name = f"codes of codebook {number}"
        if not isinstance(code, Tensor) or code.dim() != 2 or code.is_floating_point() or not code.numel():
            raise InvalidTokens(f"{name} are {described(code)}; expected integers (batch, frames / {quantizer.stride})")
        if not number:
            rows, frames = code.shape[0], code.shape[1] * quantizer.stride
        if code.shape != (rows, frames // quantizer.stride) or frames % quantizer.stride:
            raise InvalidTokens(
                f"{name} have shape {tuple(code.shape)}; {frames} frames need ({rows}, {frames / quantizer.stride:g})"
            )
        if code.device != device:
            raise InvalidTokens(f"{name} are on {code.device}, and the model is on {device}; move them there")
    ranges = torch.stack([torch.stack([code.min(), code.max()]).long() for code in indices]).tolist()
    for number, ((least, most), quantizer) in enumerate(zip(ranges, quantizers, strict=False)):
        if not 0 <= least <= most < len(quantizer.codebook):
            raise InvalidTokens(f"codes of codebook {number} are {least} to {most}; expected 0 to {len(quantizer.codebook) - 1}")
    return [code.long() for code in indices]
