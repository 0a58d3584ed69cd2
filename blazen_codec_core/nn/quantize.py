"""Factorised, multi-scale residual vector quantization.

Sources: residual VQ, Zeghidour et al. 2021, "SoundStream"; factorised and L2-normalised codes, Kumar et al. 2023,
"High-Fidelity Audio Compression with Improved RVQGAN"; codebooks at several rates, Siuzdak et al. 2024, "SNAC".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import WindowState
from .conv import Conv1d
from .layer import Seeded, StreamSetup


class VectorQuantizer(Seeded):
    """One codebook of `entries` vectors in a small space, reached and left through linear projections.

    A frame of this codebook covers `stride` frames of the latent signal, which are averaged on the way in and repeated
    on the way out.
    """

    def __init__(self, channels: int, entries: int, code_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.in_proj = Conv1d(channels, code_channels, 1)
        self.out_proj = Conv1d(code_channels, channels, 1)
        self.codebook = nn.Parameter(torch.zeros(entries, code_channels))

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.codebook.normal_(0.0, 1.0, generator=generator)

    def project(self, z: Tensor) -> Tensor:
        """`(batch, frames, channels)` to `(batch, frames / stride, code_channels)`."""
        if self.stride > 1:
            z = z.reshape(z.shape[0], -1, self.stride, z.shape[2]).mean(2)
        return self.in_proj(z)

    def nearest(self, codes: Tensor) -> Tensor:
        """Indices `(batch, frames)` of the entries nearest in angle; the length of `codes` does not matter to that."""
        return torch.matmul(codes, F.normalize(self.codebook, dim=1).t()).argmax(-1)

    def expand(self, codes: Tensor) -> Tensor:
        """Vectors of the codebook's space `(batch, frames / stride, code_channels)` to `(batch, frames, channels)`."""
        z = self.out_proj(codes)
        return z.repeat_interleave(self.stride, dim=1) if self.stride > 1 else z

    def decode(self, indices: Tensor) -> Tensor:
        return self.expand(F.embedding(indices, self.codebook))


@dataclasses.dataclass
class Quantized:
    """What training needs of a pass through the quantizer."""

    z: Tensor
    """The quantized latent, with straight-through gradients, `(batch, frames, channels)`."""
    indices: list[Tensor]
    commitment: Tensor
    """How far the encoder's projections are from their entries; gradients to the encoder."""
    codebook: Tensor
    """The same distance; gradients to the entries."""


class ResidualVectorQuantizer(nn.Module):
    """Codebooks one after the other, each on what the ones before it left over.

    Args:
        channels: Of the latent signal.
        strides: Latent frames a token of each codebook covers, such as `(4, 2, 1)`.
    """

    def __init__(self, channels: int, entries: int, code_channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        self.group = math.lcm(*strides)
        """Latent frames that hold a whole number of tokens of every codebook."""
        self.quantizers = nn.ModuleList(VectorQuantizer(channels, entries, code_channels, s) for s in strides)

    def __iter__(self) -> Iterator[VectorQuantizer]:
        return iter(cast(Iterable[VectorQuantizer], self.quantizers))

    def init_state(self, setup: StreamSetup) -> WindowState:
        return WindowState(setup.zeros(0, self.channels))

    def frames_out(self, frames: int) -> int:
        """How many latent frames are quantized once `frames` have gone in."""
        return frames // self.group * self.group

    def step(self, z: Tensor, state: WindowState) -> list[Tensor]:
        """Latent frames `(batch, frames, channels)` to indices `(batch, frames / stride)` a codebook, in whole groups."""
        if state.pending.shape[1]:
            z = torch.cat([state.pending, z], dim=1)
        frames = self.frames_out(z.shape[1])
        state.pending = z[:, frames:].clone()
        residual = z[:, :frames].clone()
        indices = []
        for quantizer in self:
            index = quantizer.nearest(quantizer.project(residual))
            residual -= quantizer.decode(index)
            indices.append(index)
        return indices

    def decode(self, indices: Sequence[Tensor]) -> Tensor:
        """Indices of the first codebooks, `(batch, frames / stride)` each, to the latent `(batch, frames, channels)`."""
        parts = [quantizer.decode(index) for quantizer, index in zip(self, indices, strict=False)]
        z = parts[0]
        for part in parts[1:]:
            z = z + part
        return z

    def forward(self, z: Tensor, keep: Tensor | None = None) -> Quantized:
        """The whole latent signal, for training.

        Args:
            z: `(batch, frames, channels)`, frames a multiple of `group`.
            keep: `(batch,)`, how many codebooks each signal uses; all by default (quantizer dropout).
        """
        residual, total = z, torch.zeros_like(z)
        indices, commitment, codebook = [], z.new_zeros(()), z.new_zeros(())
        for number, quantizer in enumerate(self):
            projected = quantizer.project(residual)
            index = quantizer.nearest(projected.detach())
            chosen = F.embedding(index, quantizer.codebook)
            used = z.new_ones(z.shape[0]) if keep is None else (keep > number).to(z.dtype)
            weight = used[:, None, None]
            commitment = commitment + (weight * (projected - chosen.detach()).square()).mean()
            codebook = codebook + (weight * (projected.detach() - chosen).square()).mean()
            part = quantizer.expand(projected + (chosen - projected).detach()) * weight
            total, residual = total + part, residual - part
            indices.append(index)
        return Quantized(total, indices, commitment, codebook)
