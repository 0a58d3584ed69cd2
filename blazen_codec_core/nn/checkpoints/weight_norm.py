"""Weight normalization (Salimans & Kingma 2016): `weight = g * v / |v|`, folded at loading."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(v: Tensor) -> Tensor:
    """Return the norm of each slice along the first axis; other axes have length 1."""
    norms: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return norms.reshape(-1, *[1] * (v.dim() - 1))


def fold(g: Tensor, v: Tensor) -> Tensor:
    """Compute the weight from its magnitude and direction."""
    return v * (g / norm(v))
