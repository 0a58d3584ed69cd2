"""What may come after a convolution, and what it is in double precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from blazen_codec_core.nn.kernels.epilogue import ELU, SNAKE, Epilogue


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").to(torch.get_default_device())


def after_of(kind: int, scaled: bool, added: bool, batch: int, frames: int, channels: int, held: int = 0) -> Epilogue:
    """One of these, for so many frames, of which some are held."""
    alpha = 0.5 + drawn(channels, seed=7).abs()
    return Epilogue(
        scale=drawn(frames, seed=8) if scaled else None,
        kind=kind,
        parameters=(alpha, 1 / alpha) if kind == SNAKE else None,
        added=drawn(batch, max(0, frames + 2 - held), channels, seed=9) if added else None,
        held=drawn(batch, held, channels, seed=10) if added and held else None,
    )


def finished(y: torch.Tensor, after: Epilogue) -> torch.Tensor:
    """What `after` is."""
    if after.scale is not None:
        y = y * after.scale.double()[:, None]
    if after.kind == SNAKE:
        assert after.parameters is not None
        alpha, inverse = (values.double() for values in after.parameters)
        y = y + torch.sin(alpha * y) ** 2 * inverse
    elif after.kind == ELU:
        y = F.elu(y)
    return y if after.added is None else y + after.all_added()[:, : y.shape[1]].double()
