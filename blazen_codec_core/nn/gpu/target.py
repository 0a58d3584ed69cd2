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


@functools.cache
def stages(most: int, bytes_of_one: int, device: torch.device) -> int:
    """How many stages of loading ahead have a place in shared memory."""
    if device.type != "cuda":
        return most
    properties = torch.cuda.get_device_properties(device)
    place = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    return max(1, min(most, place // bytes_of_one))
