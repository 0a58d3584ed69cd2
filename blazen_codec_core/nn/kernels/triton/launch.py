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
"""First compute capability with tensor cores for bfloat16 and TF32."""


@triton.jit
def _probe(x):  # type: ignore[no-untyped-def]
    tl.store(x, 1.0)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Tell whether these kernels support a device, and Triton can compile for it here."""
    if device.type != "cuda":
        return INTERPRETED and device.type == "cpu"
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    try:
        launch(_probe, (1,), torch.empty(1, device=device))
    except Exception as error:  # compilers may raise anything, and may be missing
        warnings.warn(
            f"Triton cannot compile here, so the GPU runs PyTorch's own kernels, which are slower: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def launch(kernel: Any, grid: tuple[int, ...], x: torch.Tensor, *arguments: Any, **settings: Any) -> None:
    """Launch a kernel, whose first argument is `x`, on the device of `x`."""
    settings["enable_fp_fusion"] = True  # defaults differ between releases, and fusion changes rounding
    with torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext():
        kernel[grid](x, *arguments, **settings)


@functools.cache
def stages(limit: int, bytes_of_one: int, device: torch.device) -> int:
    """Number of pipeline stages whose loads fit into shared memory, at most `limit`."""
    if device.type != "cuda":
        return limit
    properties = torch.cuda.get_device_properties(device)
    capacity = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    return max(1, min(limit, capacity // bytes_of_one))
