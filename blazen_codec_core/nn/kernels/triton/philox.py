"""Counter-based normal noise on the GPU: NumPy's Philox4x64-10 and the Box-Muller transform.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from .launch import launch

COUNTERS = 128
"""Counters of a program."""
PER_COUNTER = 8
"""Normals from one counter."""


@triton.jit(do_not_specialize=["count", "seed", "layer"])
def _box_muller(out, positions, count, seed, layer, ANGLE_STEP: tl.constexpr, COUNTERS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    start = tl.load(positions + row)
    first, skip = start // 8, start % 8
    out += row * count
    number = tl.program_id(0).to(tl.int64) * COUNTERS + tl.arange(0, COUNTERS)
    a = (number + first + 1).to(tl.uint64)  # NumPy increments the counter before the first block
    b, c, d = tl.zeros_like(a), tl.zeros_like(a), tl.zeros_like(a)
    key, other = tl.zeros_like(a) + seed.to(tl.uint64), tl.zeros_like(a) + layer.to(tl.uint64)
    m = tl.full((COUNTERS,), 0xD2E7470EE14C6C93, tl.uint64)
    n = tl.full((COUNTERS,), 0xCA5A826395121157, tl.uint64)
    for _ in tl.static_range(10):
        a, b, c, d = tl.umulhi(n, c) ^ b ^ key, n * c, tl.umulhi(m, a) ^ d ^ other, m * a
        key += tl.full((COUNTERS,), 0x9E3779B97F4A7C15, tl.uint64)
        other += tl.full((COUNTERS,), 0xBB67AE8584CAA73B, tl.uint64)
    offset = number * 8 - skip
    for word in tl.static_range(4):
        bits = a if word == 0 else b if word == 1 else c if word == 2 else d
        radius = tl.sqrt(-2.0 * tl.log(((bits >> 32).to(tl.float64) + 0.5) * 2.3283064365386963e-10))
        angle = (bits & 0xFFFFFFFF).to(tl.float64) * ANGLE_STEP
        for half in tl.static_range(2):
            value = radius * (tl.cos(angle) if half == 0 else tl.sin(angle))
            position = offset + (2 * word + half)
            tl.store(out + position, value.to(tl.float32).to(out.dtype.element_ty), mask=(position >= 0) & (position < count))


def random_normal(
    seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """`count` standard normal values from each position on, `(rows, count)`."""
    out = torch.empty(len(positions), count, device=device, dtype=dtype)
    counters = -(-(PER_COUNTER - 1 + count) // PER_COUNTER)  # a row begins at any value of its first counter
    if count:
        starts = _on_device(positions, device)
        signed = seed - (1 << 64) if seed >> 63 else seed
        grid = (triton.cdiv(counters, COUNTERS), len(positions))
        angle_step = 2 * math.pi * 2.0**-32
        launch(_box_muller, grid, out, starts, count, signed, layer, ANGLE_STEP=angle_step, COUNTERS=COUNTERS, num_warps=4)
    return out


def _on_device(positions: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy positions to the device without waiting for it."""
    if len(positions) == 1:
        return torch.full((1,), int(positions[0]), device=device)
    host = torch.from_numpy(positions)
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
