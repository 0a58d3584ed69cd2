"""Devices that run these kernels, and how they are launched."""

from __future__ import annotations

import functools
import warnings
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
OLDEST = (8, 0)
"""The first compute capability with matrix units for bfloat16 and for TF32."""


@triton.jit
def _nothing(x):  # type: ignore[no-untyped-def]
    tl.store(x, 1.0)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Tell whether a device is one that these kernels are for, and they can be compiled for it here."""
    if device.type != "cuda":
        return INTERPRETED and device.type == "cpu"
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    try:
        launch(_nothing, (1,), torch.empty(1, device=device))
    except Exception as error:  # whatever compilers die of, such as that there is none
        warnings.warn(
            f"Triton cannot compile here, so a GPU is left to PyTorch's own kernels, which are slower: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def launch(kernel: Any, grid: tuple[int, ...], x: torch.Tensor, *arguments: Any, **settings: Any) -> None:
    """Starts a kernel, whose first argument is `x`, on the device of `x`."""
    settings["enable_fp_fusion"] = True  # releases differ in what they do unasked, and that changes how values are rounded
    with torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext():
        kernel[grid](x, *arguments, **settings)


@functools.cache
def stages(most: int, bytes_of_one: int, device: torch.device) -> int:
    """Number of pipeline stages whose loads fit into shared memory, at most `most`."""
    if device.type != "cuda":
        return most
    properties = torch.cuda.get_device_properties(device)
    place = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    return max(1, min(most, place // bytes_of_one))
