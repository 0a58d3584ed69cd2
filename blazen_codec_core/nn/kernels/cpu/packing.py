"""Packing of weights into panels one block of registers wide, and products of rows with these (BLIS's packm)."""

from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from .microkernel import gemm_rows_v1, gemm_rows_v2, is_available
from .simd import LANES

_TERMS = 128
"""Of a sum that are taken before those of the next rows, with the same weights."""


@njit
def panel(vectors, x, row, taps, tap, depth, weight, bias, out, out_row, count):  # type: ignore[no-untyped-def]
    """So many rows by one panel of one or two vectors, some terms after the other, whose weights stay in the nearest cache."""
    some_taps, some_depth = max(1, _TERMS // depth), min(depth, _TERMS)
    start, start_row = bias, 0
    for j in range(0, taps, some_taps):
        for k in range(0, depth, some_depth):
            own_x, own_taps, own_depth = x + 4 * (j * tap + k), min(some_taps, taps - j), min(some_depth, depth - k)
            size = own_taps * own_depth * vectors * LANES
            if vectors == 1:
                gemm_rows_v1(own_x, row, own_taps, tap, own_depth, weight, start, start_row, out, out_row, size, count)
            else:
                gemm_rows_v2(own_x, row, own_taps, tap, own_depth, weight, start, start_row, out, out_row, size, count)
            weight += 4 * size
            start, start_row = out, out_row


def panel_vectors(channels: int) -> int:
    """Width of a panel of weights in vectors, for `channels` output channels."""
    return 1 if channels % (2 * LANES) else 2


def suits_products(weight: Tensor) -> bool:
    """Tell whether there are products with such weights at all."""
    return is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"


def supports_direct_conv(weight: Tensor) -> bool:
    """Tell whether blocks are made for a weight `(..., out)`: of channels that fill vectors."""
    return suits_products(weight) and weight.shape[-1] % LANES == 0


def pack_panels(weight: Tensor, vectors: int | None = None) -> Tensor:
    """A weight `(terms, out)` in panels `(panels, terms, width)`, of so many vectors or as many as `panel` takes."""
    terms, channels = weight.shape
    width = (vectors or panel_vectors(channels)) * LANES
    return weight.reshape(terms, channels // width, width).transpose(0, 1).contiguous()


def kept(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[-1]) if bias is None else bias.detach().clone()
