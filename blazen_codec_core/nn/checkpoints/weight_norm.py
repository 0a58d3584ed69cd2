"""Weight normalisation (Salimans & Kingma 2016): `weight = g * v / |v|`, folded when weights are loaded."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(v: Tensor) -> Tensor:
    """The norm of each slice along the first axis, with the other axes kept at length 1."""
    norms: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return norms.reshape(-1, *[1] * (v.dim() - 1))


def fold(g: Tensor, v: Tensor) -> Tensor:
    """The weight that a magnitude and a direction stand for."""
    return v * (g / norm(v))
