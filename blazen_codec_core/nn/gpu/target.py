"""Where these kernels run."""

from __future__ import annotations

import functools

import torch
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
OLDEST = (8, 0)
"""The first compute capability with matrix units for bfloat16 and for TF32."""


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether a device is one that these kernels are for."""
    if device.type == "cuda":
        return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= OLDEST
    return INTERPRETED and device.type == "cpu"
