"""Delay pattern of batches of codes, as tensor operations on any device; see `TableLayout` for one recording."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidTokens


def delay(codes: Tensor, fill: int, lengths: Tensor | None = None) -> Tensor:
    """Delay codebook k by k steps (Copet et al. 2023, "Simple and controllable music generation", figure 1).

    Args:
        codes: Integers `(batch, frames, codebooks)`.
        fill: Id before a codebook starts and after it ends: `codebook_size` in `musicgen_delay`.
        lengths: Frames of each recording, `(batch,)`; all by default. Codes beyond are replaced by `fill`.

    Returns:
        Ids `(batch, frames + codebooks - 1, codebooks)`.

    Raises:
        InvalidTokens: The codes are no tensor, or have another number of axes.
    """
    _check(codes)
    frames, books = codes.shape[1:]
    times = torch.arange(frames + books - 1, device=codes.device)[:, None] - torch.arange(books, device=codes.device)
    ends = (
        torch.full((len(codes),), frames, device=codes.device)
        if lengths is None
        else torch.as_tensor(lengths, device=codes.device)
    )
    is_code = (times >= 0) & (times < ends[:, None, None])
    delayed = (
        codes.gather(1, times.clamp(0, max(frames - 1, 0)).expand(len(codes), -1, -1)) if frames else is_code.to(codes.dtype)
    )
    return torch.where(is_code, delayed, fill)


def undelay(ids: Tensor) -> Tensor:
    """Invert `delay`: return codes `(batch, steps - codebooks + 1, codebooks)` of ids `(batch, steps, codebooks)`.

    Raises:
        InvalidTokens: The ids are no tensor, have another number of axes, or fewer steps than complete a frame.
    """
    _check(ids)
    steps, books = ids.shape[1:]
    frames = steps - books + 1
    if frames < 1:
        raise InvalidTokens(f"{steps} steps of {books} codebooks have no complete frame")
    return torch.stack([ids[:, book : book + frames, book] for book in range(books)], dim=2)


def _check(ids: Tensor) -> None:
    if not isinstance(ids, Tensor):
        raise InvalidTokens(f"ids are {type(ids).__name__}; expected a tensor (batch, steps, codebooks)")
    if ids.ndim != 3 or ids.is_floating_point() or not ids.shape[2]:
        raise InvalidTokens(f"ids are {ids.dtype} of shape {tuple(ids.shape)}; expected integers (batch, steps, codebooks)")
