"""What may come after a convolution, and what it is in double precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from blazen_codec_core.nn.kernels.epilogue import ELU, GAIN, GELU, NONE, SILU, SNAKE, Epilogue

ACTIVATIONS = [NONE, SNAKE, ELU, GELU, SILU, GAIN]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").to(torch.get_default_device())


def epilogue_for(
    activation: int, scaled: bool, residual: bool, batch: int, frames: int, channels: int, head: int = 0
) -> Epilogue:
    """One of these, for so many frames, of which some are held."""
    alpha = 0.5 + drawn(channels, seed=7).abs()
    return Epilogue(
        scale=drawn(frames, seed=8) if scaled else None,
        activation=activation,
        parameters={SNAKE: (alpha, 1 / alpha), GAIN: (alpha, alpha)}.get(activation),
        residual=drawn(batch, max(0, frames + 2 - head), channels, seed=9) if residual else None,
        residual_head=drawn(batch, head, channels, seed=10) if residual and head else None,
    )


def apply_epilogue(y: torch.Tensor, epilogue: Epilogue) -> torch.Tensor:
    """What `epilogue` is."""
    if epilogue.scale is not None:
        y = y * epilogue.scale.double()[:, None]
    if epilogue.activation == SNAKE:
        assert epilogue.parameters is not None
        alpha, inverse = (values.double() for values in epilogue.parameters)
        y = y + torch.sin(alpha * y) ** 2 * inverse
    elif epilogue.activation == ELU:
        y = F.elu(y)
    elif epilogue.activation == GELU:
        y = F.gelu(y)
    elif epilogue.activation == SILU:
        y = F.silu(y)
    elif epilogue.activation == GAIN:
        assert epilogue.parameters is not None
        y = y * epilogue.parameters[0].double()
    return y if epilogue.residual is None else y + epilogue.full_residual()[:, : y.shape[1]].double()
