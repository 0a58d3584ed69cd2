"""Initialization of codebooks from data.

A quantizer that is trained from the first step collapses to a handful of entries. Instead, the autoencoder is trained alone.
Each codebook is then fitted to the residual of those before it. A plain codebook is fitted by k-means. A factorized one takes
its projection from principal components, directions from spherical k-means, magnitudes from the members of each cluster, and
the output projection from least squares. Residual quantizers side by side share the principal components: each gets some of its
own, since none knows what the others leave over, and the last gets as many as it has code channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blazen_codec_core.nn import (
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    FactorizedQuantizer,
    Projections,
    ResidualVectorQuantizer,
    VectorQuantizer,
)

COMPONENTS = 2
"""Principal components for each codebook of a residual quantizer beside others, except the last."""


@torch.no_grad()
def normalise(network: CodecNetwork, latents: Tensor) -> None:
    """Scale the latents to unit variance by the encoder's last and the decoder's first convolution.

    The output does not change. Learning steps of codebooks and encoder then have the same scale.
    """
    scale = latents.std()
    last = [module for module in network.encoder.modules() if isinstance(module, Conv1d)][-1]
    first = next(module for module in network.decoder.modules() if isinstance(module, Conv1d | ConvTranspose1d))
    last.weight.div_(scale)
    if last.bias is not None:
        last.bias.div_(scale)
    first.weight.mul_(scale)


@torch.no_grad()
def fit(quantizer: ResidualVectorQuantizer, latents: Tensor, generator: torch.Generator) -> list[float]:
    """Fit the codebooks in turn to `latents` `(batch, frames, channels)`; return the fraction of energy left after each."""
    rest, unspanned, left = latents.clone(), latents.flatten(0, 1), []
    energy = float(latents.var(dim=(0, 1)).sum())
    groups = list(quantizer.groups())
    for projections, books in groups:
        residual = latents.clone()
        if projections is not None:
            count = projections.to_codes.out_channels if books is groups[-1][1] else COMPONENTS * len(books)
            unspanned = fit_projections(projections, unspanned, count)
            residual = projections.to_codes.project(latents)
        for book in books:
            frames = residual.reshape(residual.shape[0], -1, book.stride, residual.shape[2]).mean(2).flatten(0, 1)
            if isinstance(book, FactorizedQuantizer):
                fit_factorized(book, frames, generator)
            else:
                fit_plain(book, frames, generator)
            part = book.decode(book.nearest(book.project(residual)))
            residual -= part
            rest -= part if projections is None else projections.to_latent.project(part)
            left.append(float(rest.square().mean((0, 1)).sum()) / energy)
    return left


def fit_projections(projections: Projections, vectors: Tensor, components: int) -> Tensor:
    """Fit linear maps to the first principal components of `vectors` `(n, channels)`; return what these do not span.

    The other code channels are silent at first: what is read into them is zero, and what they would write are later components.
    """
    into, out = projections.to_codes.weight[0], projections.to_latent.weight[0]
    basis = torch.linalg.svd(vectors, full_matrices=False)[2][: into.shape[1]].t()
    used = basis[:, :components]
    into.zero_()
    into[:, : used.shape[1]] = used
    out.zero_()
    out[: basis.shape[1]] = basis.t()
    unspanned: Tensor = vectors - vectors @ used @ used.t()
    return unspanned


def fit_plain(book: VectorQuantizer, frames: Tensor, generator: torch.Generator, rounds: int = 25) -> None:
    """Fit a plain codebook by k-means; empty clusters restart at a random vector."""
    book.codebook.copy_(_draw(frames, len(book.codebook), generator, distinct=True))
    for _ in range(rounds):
        members = book.nearest(frames)
        counts = torch.bincount(members, minlength=len(book.codebook))
        means = torch.zeros_like(book.codebook).index_add_(0, members, frames) / counts.clamp(min=1)[:, None]
        restart = _draw(frames, len(book.codebook), generator)
        book.codebook.copy_(torch.where(counts[:, None] == 0, restart, means))


def fit_factorized(book: FactorizedQuantizer, frames: Tensor, generator: torch.Generator) -> None:
    mean = frames.mean(0)
    width = book.codebook.shape[1]
    _, _, basis = torch.linalg.svd(frames - mean, full_matrices=False)
    projected = (frames - mean) @ basis[:width].t()
    scale = projected.square().mean().sqrt()
    book.in_proj.weight[0] = basis[:width].t() / scale
    assert book.in_proj.bias is not None
    assert book.out_proj.bias is not None
    book.in_proj.bias.copy_(-(mean @ basis[:width].t()) / scale)
    projected /= scale
    members = spherical_k_means(projected, book.codebook.shape[0], generator)
    counts = torch.bincount(members, minlength=len(book.codebook)).clamp(min=1)
    sums = torch.zeros_like(book.codebook).index_add_(0, members, projected)
    book.codebook.copy_(sums / counts[:, None])
    chosen = F.embedding(members, book.codebook)
    design = torch.cat([chosen, chosen.new_ones(len(chosen), 1)], dim=1)
    solution = torch.linalg.lstsq(design, frames).solution
    book.out_proj.weight[0] = solution[:-1]
    book.out_proj.bias.copy_(solution[-1])


def _draw(vectors: Tensor, count: int, generator: torch.Generator, *, distinct: bool = False) -> Tensor:
    """Draw `count` of `vectors` on the CPU, so that the result does not depend on the device."""
    if distinct:
        chosen = torch.randperm(len(vectors), generator=generator, device="cpu")[:count]
    else:
        chosen = torch.randint(len(vectors), (count,), generator=generator, device="cpu")
    return vectors[chosen.to(vectors.device)]


def spherical_k_means(points: Tensor, count: int, generator: torch.Generator, rounds: int = 25) -> Tensor:
    """Assign each of `points` `(n, width)` to one of `count` directions; empty clusters restart at a random point."""
    directions = F.normalize(points, dim=1)
    centres = _draw(directions, count, generator, distinct=True)
    for _ in range(rounds):
        members = (directions @ centres.t()).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, members, points)
        empty = torch.bincount(members, minlength=count) == 0
        restart = _draw(directions, count, generator)
        centres = torch.where(empty[:, None], restart, F.normalize(sums, dim=1))
    return (directions @ centres.t()).argmax(1)


@torch.no_grad()
def split(quantizer: ResidualVectorQuantizer, latents: Tensor, generator: torch.Generator, apart: float = 0.1) -> list[int]:
    """Move unused entries beside frequently used ones; return the number of moved entries per codebook.

    The quantized signal hardly changes. Late in a training, this works better than moving entries onto vectors of the data,
    which then stay unused. Source: splitting in the LBG algorithm (Linde, Buzo & Gray 1980, "An Algorithm for Vector Quantizer
    Design").
    """
    moved = []

    def choose(book: VectorQuantizer, residual: Tensor) -> Tensor:
        chosen = book.nearest(book.project(residual))
        counts = torch.bincount(chosen.flatten(), minlength=len(book.codebook))
        dead = (counts == 0).nonzero().flatten()
        dead = dead[: int((counts > 0).sum())]
        busiest = counts.argsort(descending=True)[: len(dead)]
        noise = torch.randn(len(dead), book.codebook.shape[1], generator=generator, device="cpu").to(latents.device)
        parents = book.codebook[busiest]
        book.codebook[dead] = parents + apart * parents.square().mean(1, keepdim=True).sqrt() * noise
        moved.append(len(dead))
        return chosen

    quantizer.walk(latents, choose)
    return moved


class Usage:
    """Running mean of the usage of entries, to revive unused ones."""

    def __init__(self, quantizer: ResidualVectorQuantizer, decay: float = 0.995) -> None:
        self.decay = decay
        codebook = next(iter(quantizer)).codebook
        self.shares = codebook.new_ones(len(quantizer), len(codebook)).detach()

    def update(self, indices: list[Tensor]) -> None:
        """Add the indices of a batch. A share of 1 means average use."""
        for share, index in zip(self.shares, indices, strict=True):
            counts = torch.bincount(index.flatten(), minlength=len(share)).float()
            share.mul_(self.decay).add_(counts * (len(share) / index.numel()), alpha=1 - self.decay)

    @torch.no_grad()
    def revive(self, quantizer: ResidualVectorQuantizer, z: Tensor, generator: torch.Generator, below: float) -> int:
        """Move entries with a share less than `below` onto vectors of the batch `z`; return the number of moved entries."""
        shares, drawn = iter(self.shares), list[tuple[VectorQuantizer, Tensor, Tensor]]()

        def choose(book: VectorQuantizer, residual: Tensor) -> Tensor:
            projected, share = book.project(residual), next(shares)
            dead = (share < below).nonzero().flatten()[: projected.shape[0] * projected.shape[1] // 4]
            drawn.append((book, dead, _draw(projected.flatten(0, 1), len(dead), generator)))
            share[dead] = 1.0
            return book.nearest(projected)

        quantizer.walk(z.detach(), choose)
        for book, dead, vectors in drawn:
            book.codebook[dead] = vectors
        return sum(len(dead) for _, dead, _ in drawn)

    def state_dict(self) -> Tensor:
        return self.shares

    def load_state_dict(self, shares: Tensor) -> None:
        self.shares = shares
