"""Counter-based normal noise as tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....counter_noise import Transform, box_muller, normal_values


def random_normal(
    seed: int,
    layer: int,
    positions: NDArray[np.int64],
    count: int,
    device: torch.device,
    dtype: torch.dtype,
    transform: Transform = box_muller,
) -> Tensor:
    """`count` standard normal values from each position on, `(rows, count)`.

    Args:
        transform: The Box-Muller transform.
    """
    values = [normal_values(seed, layer, position, count, transform) for position in positions.tolist()]
    return torch.from_numpy(np.stack(values)).to(device, dtype)
