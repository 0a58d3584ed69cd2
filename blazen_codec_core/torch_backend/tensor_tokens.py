"""Tokens in tensors on the device of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from ..errors import InvalidTokens
from ..specs import CodecSpec
from ..tokens.tokens import CodecTokens, longest
from .transfers import codes_to_host

if TYPE_CHECKING:
    from torch import Tensor


def frames_of(spec: CodecSpec, samples: int) -> int:
    """Number of frames of a signal."""
    if spec.segment:
        return spec.segment.frames(samples, spec.hop_length)
    return -(-(samples + spec.missing_samples(samples)) // spec.hop_length)


def longest_signal(spec: CodecSpec, frames: int) -> int:
    """Samples of the longest signal with at most this number of frames."""
    return longest(frames, spec.hop_length, spec.segment)


@dataclass(frozen=True, eq=False, repr=False)
class TensorTokens(Sequence["Tensor"]):
    """Tokens of a batch of signals, in tensors on a device; as a sequence, the codes of each codebook.

    Attributes:
        codes: Indices of each codebook in int64, `(batch, frames / stride)`. What follows the end of a shorter signal is 0.
        lengths: Samples of each signal.
        scales: Scales `(batch, segments)` in float32, for codecs that normalize segments.
        streams: Consecutive rows of the batch that belong to one signal, as those of a stereo signal do with a mono codec.
        weights: Label of the weights, as in `CodecTokens.weights`.
    """

    spec: CodecSpec
    codes: tuple[Tensor, ...]
    lengths: tuple[int, ...]
    scales: Tensor | None = None
    streams: int = 1
    weights: str | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        return self.codes[index]

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(code.shape)) for code in self.codes)
        return f"<TensorTokens {self.spec.identity} {shapes} on {self.device}>"

    @property
    def device(self) -> torch.device:
        return self.codes[0].device

    @property
    def seconds(self) -> float:
        """Duration of the longest signal."""
        return max(self.lengths, default=0) / self.spec.sample_rate

    def outline(self) -> CodecTokens:
        """Tokens of the first signal on the host, whose codes are all 0: what can be checked without reading the device.

        Raises:
            InvalidTokens: The codes have shapes that tokens cannot have.
        """
        codes = [np.zeros((self.streams, code.shape[1]), np.int32) for code in self.codes]
        return CodecTokens.from_codes(self.spec, codes, num_samples=self.lengths[0], weights=self.weights)

    def to_tokens(self) -> list[CodecTokens]:
        """Copy to the host: `CodecTokens` of each signal."""
        codes = codes_to_host(self.codes)
        scales = None if self.scales is None else self.scales.detach().cpu().numpy()
        strides, tokens = self.spec.strides, []
        for number, samples in enumerate(self.lengths[:: self.streams]):
            rows = slice(number * self.streams, (number + 1) * self.streams)
            frames = frames_of(self.spec, samples)
            own = [code[rows, : frames // stride] for code, stride in zip(codes, strides, strict=False)]
            factors = None
            if scales is not None and self.spec.segment:
                factors = scales[rows, : self.spec.segment.count(samples)]
            tokens.append(CodecTokens.from_codes(self.spec, own, num_samples=samples, weights=self.weights, scales=factors))
        return tokens

    @classmethod
    def from_tokens(cls, spec: CodecSpec, items: Sequence[CodecTokens], device: torch.device) -> TensorTokens:
        """Copy tokens of signals, which have equal numbers of streams and of codebooks, to a device.

        Raises:
            InvalidTokens: There are none, or their numbers of streams or codebooks differ.
        """
        kinds = {(item.streams, item.num_codebooks) for item in items}
        if len(kinds) != 1:
            raise InvalidTokens(
                f"{len(items)} items have {len(kinds)} different numbers of streams or codebooks; put equal ones in a batch"
            )
        [(streams, books)] = kinds
        codes = tuple(
            _padded([torch.tensor(item.codes[book], dtype=torch.int64) for item in items]).to(device) for book in range(books)
        )
        scales = [torch.tensor(item.scales) for item in items if item.scales is not None]
        return cls(
            spec,
            codes,
            tuple(item.num_samples for item in items for _ in range(streams)),
            _padded(scales).to(device) if scales else None,
            streams,
            items[0].weights,
        )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Concatenation of rows of different lengths, padded with zeros."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])
