"""Residual vector quantization: plain, factorised, multi-scale and split.

Sources: residual VQ, Zeghidour et al. 2021, "SoundStream"; factorised and L2-normalised codes, Kumar et al. 2023,
"High-Fidelity Audio Compression with Improved RVQGAN"; codebooks at several rates, Siuzdak et al. 2024, "SNAC"; residual
quantizers side by side, Défossez et al. 2024, "Moshi".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.exporting import is_exporting, is_symbolic
from ..kernels.interface import CodebookSearch
from .attention import WindowState
from .base import StreamingModule, StreamSetup
from .conv import Conv1d


class StraightThrough(torch.autograd.Function):
    """The entries that were chosen, with the gradient passed on to the vectors that they replace (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, chosen: Tensor) -> Tensor:
        return chosen.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class VectorQuantizer(StreamingModule):
    """One codebook: a vector is quantized to the nearest of its `entries`.

    A frame of this codebook covers `stride` frames of the latent signal, which are averaged on the way in and repeated
    on the way out.

    Args:
        channels: Channels of the latent signal.
        init_std: Standard deviation of randomly drawn entries.
    """

    searches = True
    """The codebook will be searched; decoding needs only its entries."""

    def __init__(self, channels: int, entries: int, stride: int = 1, *, init_std: float = 1.0) -> None:
        super().__init__()
        self.stride, self.init_std = stride, init_std
        self.codebook = nn.Parameter(torch.zeros(entries, channels, dtype=torch.float32))
        self._prepared: CodebookSearch | None = None

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.codebook.normal_(0.0, self.init_std, generator=generator)

    def project(self, z: Tensor) -> Tensor:
        """Project `(batch, frames, channels)` to the codebook's own space and rate, `(batch, frames / stride, code_channels)`."""
        return z.reshape(z.shape[0], -1, self.stride, z.shape[2]).mean(2) if self.stride > 1 else z

    def prepare(self) -> None:
        if self.searches:
            self._prepared = self.make_search(frozen=True)

    def make_search(self, frozen: bool) -> CodebookSearch:
        """Choose the kernel that finds the nearest entry.

        Minus half the squared distance, without the vector's own norm, is the inner product minus half the entry's squared norm.
        """
        return dispatch.codebook_search(self.codebook.t(), self.codebook.square().sum(-1) / -2, frozen=frozen)

    def nearest(self, codes: Tensor) -> Tensor:
        """Indices `(batch, frames)` of the nearest entries."""
        return (self._prepared or self.make_search(frozen=False))(codes)

    def expand(self, codes: Tensor) -> Tensor:
        """Map vectors of the codebook's space `(batch, frames / stride, code_channels)` to `(batch, frames, channels)`."""
        return codes.repeat_interleave(self.stride, dim=1) if self.stride > 1 else codes

    def decode(self, indices: Tensor) -> Tensor:
        """Latent `(batch, frames, channels)` of indices `(batch, frames / stride)`."""
        return self.expand(F.embedding(indices, self.codebook))

    @property
    def vectors(self) -> Tensor:
        """Entries in the space of the latent signal, `(entries, channels)`."""
        return self.codebook


class FactorizedQuantizer(VectorQuantizer):
    """A codebook in a low-dimensional space between linear projections, searched by cosine similarity."""

    def __init__(self, channels: int, entries: int, code_channels: int, stride: int = 1) -> None:
        super().__init__(code_channels, entries, stride)
        self.in_proj = Conv1d(channels, code_channels, 1)
        self.out_proj = Conv1d(code_channels, channels, 1)

    def project(self, z: Tensor) -> Tensor:
        z = super().project(z)
        return self.in_proj.project(z)

    def make_search(self, frozen: bool) -> CodebookSearch:
        """Choose the kernel that finds the entry of highest cosine similarity; the norm of the vector does not matter."""
        return dispatch.codebook_search(F.normalize(self.codebook, dim=1).t(), None, frozen=frozen)

    def expand(self, codes: Tensor) -> Tensor:
        return super().expand(self.out_proj.project(codes))

    @property
    def vectors(self) -> Tensor:
        return self.out_proj.project(self.codebook[None])[0]


@dataclasses.dataclass
class QuantizerState(WindowState):
    num_codebooks: int


@dataclasses.dataclass
class Quantized:
    """Result of a pass through the quantizer in training: the quantized latent, indices and losses."""

    z: Tensor
    """The quantized latent, with straight-through gradients, `(batch, frames, channels)`."""
    indices: list[Tensor]
    commitment: Tensor
    """Mean squared distance of the projections from their entries, with gradients to the encoder."""
    codebook: Tensor
    """The same distance, with gradients to the entries."""


class ResidualVectorQuantizer(StreamingModule):
    """Residual vector quantizer: each codebook quantizes what those before it left over.

    Args:
        channels: Channels of the latent signal.
        quantizers: The codebooks.
    """

    def __init__(self, channels: int, quantizers: Iterable[VectorQuantizer]) -> None:
        super().__init__()
        self.channels = channels
        codebooks = list(quantizers)
        self.quantizers = nn.ModuleList(codebooks)
        self.group = math.lcm(*(quantizer.stride for quantizer in codebooks))
        """Fewest latent frames with an integer number of tokens of every codebook."""

    def __len__(self) -> int:
        return len(self.quantizers)

    def __iter__(self) -> Iterator[VectorQuantizer]:
        return iter(cast(Iterable[VectorQuantizer], self.quantizers))

    def init_state(self, setup: StreamSetup, num_codebooks: int | None = None) -> QuantizerState:
        """State of a new stream that uses the first `num_codebooks` codebooks; all by default."""
        return QuantizerState(dataclasses.replace(setup, dtype=self.dtype).zeros(0, self.channels), num_codebooks or len(self))

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of its input, whatever dtype the network around it has."""
        return next(iter(self)).codebook.dtype

    def frames_out(self, frames: int) -> int:
        """Latent frames that are quantized once `frames` have gone in."""
        return frames // self.group * self.group

    def groups(self) -> Iterator[tuple[Projections | None, Sequence[VectorQuantizer]]]:
        """Codebooks that share a residual, with the projections to and from its space; here all of them, in the latent's own."""
        yield None, list(self)

    def walk(
        self, z: Tensor, choose: Callable[[VectorQuantizer, Tensor], Tensor], num_codebooks: int | None = None
    ) -> list[Tensor]:
        """Quantize `(batch, frames, channels)`, codebook by codebook.

        Args:
            choose: From a codebook and what those before it left over to indices `(batch, frames / stride)`.
            num_codebooks: Number of codebooks, from the first; all by default.

        Returns:
            The indices of each codebook.
        """
        indices: list[Tensor] = []
        for projections, quantizers in self.groups():
            residual = z.clone() if projections is None else projections.to_codes.project(z)
            for quantizer in quantizers:
                indices.append(index := choose(quantizer, residual))
                if len(indices) == (num_codebooks or len(self)):
                    return indices
                residual -= quantizer.decode(index)
        return indices

    def step(self, z: Tensor, state: QuantizerState) -> list[Tensor]:
        """Quantize `(batch, frames, channels)` to indices `(batch, frames / stride)` of each codebook, in complete groups."""
        if state.pending.shape[1]:
            z = torch.cat([state.pending, z], dim=1)
        frames = self.frames_out(z.shape[1])
        state.pending = z[:, frames:].clone()
        if _has_no_rows(frames):
            return [z.new_zeros((z.shape[0], 0), dtype=torch.int64) for _ in range(state.num_codebooks)]
        return self.walk(z[:, :frames], _nearest, state.num_codebooks)

    def decode(self, indices: Sequence[Tensor], num_used: Tensor | None = None) -> Tensor:
        """Latent `(batch, frames, channels)` of the indices of the first codebooks, `(batch, frames / stride)` each.

        Args:
            num_used: Number of codebooks of each signal, `(batch,)`; all by default.
        """
        if _has_no_rows(indices[0].shape[1]):
            return torch.zeros((indices[0].shape[0], 0, self.channels), dtype=self.dtype, device=indices[0].device)
        z: Tensor | None = None
        left = enumerate(indices)

        def entries(quantizer: VectorQuantizer, number: int, index: Tensor) -> Tensor:
            chosen = quantizer.decode(index)
            return chosen if num_used is None else chosen * (num_used > number).to(chosen.dtype)[:, None, None]

        for projections, quantizers in self.groups():
            parts = [entries(quantizer, *numbered) for quantizer, numbered in zip(quantizers, left, strict=False)]
            if not parts:
                break
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            total = total if projections is None else projections.to_latent.project(total)
            z = total if z is None else z + total
        assert z is not None
        return z

    @property
    def vectors(self) -> list[Tensor]:
        """Entries of each codebook in the space of the latent signal, `(entries, channels)`."""
        return [
            quantizer.vectors if projections is None else projections.to_latent.project(quantizer.vectors[None])[0]
            for projections, quantizers in self.groups()
            for quantizer in quantizers
        ]

    def forward(self, z: Tensor, num_used: int | Tensor | None = None) -> Quantized:
        """Quantize a whole latent signal, for training.

        Args:
            z: `(batch, frames, channels)`, frames a multiple of `group`.
            num_used: Number of codebooks, or the number for each signal, `(batch,)` (quantizer dropout); all by default.
        """
        count = num_used if isinstance(num_used, int) else len(self)
        indices: list[Tensor] = []
        result = torch.zeros_like(z)
        commitment, codebook = z.new_zeros(()), z.new_zeros(())
        for projections, quantizers in self.groups():
            if len(indices) == count:
                break
            residual = z if projections is None else projections.to_codes.project(z)
            total = torch.zeros_like(residual)
            for quantizer in islice(quantizers, count - len(indices)):
                projected = quantizer.project(residual)
                index = quantizer.nearest(projected.detach())
                chosen = F.embedding(index, quantizer.codebook)
                used = (num_used > len(indices)).to(z.dtype) if isinstance(num_used, Tensor) else z.new_ones(z.shape[0])
                weight = used[:, None, None]
                commitment = commitment + (weight * (projected - chosen.detach()).square()).mean()
                codebook = codebook + (weight * (projected.detach() - chosen).square()).mean()
                through: Tensor = StraightThrough.apply(projected, chosen.detach())  # type: ignore[no-untyped-call]
                part = quantizer.expand(through) * weight
                total, residual = total + part, residual - part
                indices.append(index)
            result = result + (total if projections is None else projections.to_latent.project(total))
        return Quantized(result, indices, commitment, codebook)


def _has_no_rows(frames: int) -> bool:
    """Tell whether a graph of no frames is exported, in which ONNX Runtime 1.30 refuses matrix products."""
    return is_exporting() and not is_symbolic(frames) and frames == 0


def _nearest(quantizer: VectorQuantizer, residual: Tensor) -> Tensor:
    return quantizer.nearest(quantizer.project(residual))


class Projections(StreamingModule):
    """Linear maps from the latent to the space of some codebooks, and back."""

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.to_codes = Conv1d(channels, code_channels, 1, bias=False)
        self.to_latent = Conv1d(code_channels, channels, 1, bias=False)


class SplitResidualVectorQuantizer(ResidualVectorQuantizer):
    """Residual vector quantizers side by side: each quantizes the latent in a space of its own, and their outputs are added.

    In Mimi the one codebook of the first holds what is said, and those of the second how it sounds.

    Args:
        channels: Channels of the latent signal.
        quantizers: Codebooks of each residual quantizer, all with `code_channels` channels.
    """

    def __init__(self, channels: int, code_channels: int, quantizers: Sequence[Sequence[VectorQuantizer]]) -> None:
        super().__init__(channels, chain.from_iterable(quantizers))
        self.counts = [len(group) for group in quantizers]
        self.projections = nn.ModuleList(Projections(channels, code_channels) for _ in quantizers)

    def groups(self) -> Iterator[tuple[Projections | None, Sequence[VectorQuantizer]]]:
        quantizers = iter(self)
        for projections, count in zip(cast(Iterable[Projections], self.projections), self.counts, strict=True):
            yield projections, list(islice(quantizers, count))


class PairedQuantizer(ResidualVectorQuantizer):
    """A quantizer for an encoder and a decoder that have codebooks of their own.

    Args:
        search: Quantizer of the encoder, which finds indices.
        entries: Quantizer of the decoder with as many codebooks, which decodes them.
    """

    def __init__(self, search: ResidualVectorQuantizer, entries: ResidualVectorQuantizer) -> None:
        super().__init__(search.channels, ())
        self.search, self.entries, self.group = search, entries, search.group
        for quantizer in entries:
            quantizer.searches = False

    @property
    def _present(self) -> ResidualVectorQuantizer:
        """The one of the two that is in memory, or the first."""
        return self.search if isinstance(self.search, ResidualVectorQuantizer) else self.entries

    def __len__(self) -> int:
        return len(self._present)

    def __iter__(self) -> Iterator[VectorQuantizer]:
        return iter(self._present)

    def groups(self) -> Iterator[tuple[Projections | None, Sequence[VectorQuantizer]]]:
        return self.search.groups()

    def decode(self, indices: Sequence[Tensor], num_used: Tensor | None = None) -> Tensor:
        return self.entries.decode(indices, num_used)

    @property
    def vectors(self) -> list[Tensor]:
        return self.entries.vectors

    def forward(self, z: Tensor, num_used: int | Tensor | None = None) -> Quantized:
        """Quantize a whole latent signal, for training: gradients go straight through to `z`, and to the decoder's entries."""
        found: Quantized = self.search(z, num_used)
        decoded = self.decode(found.indices, num_used if isinstance(num_used, Tensor) else None)
        return dataclasses.replace(found, z=decoded + (z - z.detach()))
