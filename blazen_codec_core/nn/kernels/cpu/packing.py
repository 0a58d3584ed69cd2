"""GEMM with packed weights: panels one tile wide (BLIS's packm), the K-blocked product with a panel, and what is supported."""

from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from .arguments import Rows, Terms
from .microkernel import gemm_rows_v1, gemm_rows_v2, gemm_rows_v4, is_available
from .simd import LANES

K_BLOCK = 128
"""Terms of a sum that are taken before those of the next rows, so that their weights stay in L1."""


@njit
def gemm_panel(vectors, x, terms, weight, init, out, count):  # type: ignore[no-untyped-def]
    """Multiply `count` rows by one packed panel of one, two or four vectors, K-blocked so that the panel stays in L1.

    Args:
        x, out: `Rows`.
        terms: `Terms` of a row.
        weight: Address.
        init: `Rows` that the products are added to; with stride 0, one row for all.
    """
    taps, tap, depth = terms
    block_taps, block_depth = max(1, K_BLOCK // depth), min(depth, K_BLOCK)
    for j in range(0, taps, block_taps):
        for k in range(0, depth, block_depth):
            src = Rows(x.address + 4 * (j * tap + k), x.stride)
            block = Terms(min(block_taps, taps - j), tap, min(block_depth, depth - k))
            size = block.taps * block.depth * vectors * LANES
            if vectors == 4:
                gemm_rows_v4(src, block, weight, init, out, size, count)
            elif vectors == 2:
                gemm_rows_v2(src, block, weight, init, out, size, count)
            else:
                gemm_rows_v1(src, block, weight, init, out, size, count)
            weight += 4 * size
            init = out


def panel_vectors(channels: int) -> int:
    """Width of a panel of weights in vectors, for `channels` output channels."""
    return next((vectors for vectors in (4, 2) if channels % (vectors * LANES) == 0), 1)


def supports_gemm(weight: Tensor) -> bool:
    """Tell whether the micro-kernels run with weights of this dtype and device."""
    return is_available() and weight.dtype == torch.float32 and weight.device.type == "cpu"


def supports_direct_conv(weight: Tensor) -> bool:
    """Tell whether the micro-kernels run with a weight `(..., out)`, whose output channels must fill vectors."""
    return supports_gemm(weight) and weight.shape[-1] % LANES == 0


def pack_panels(weight: Tensor, vectors: int | None = None) -> Tensor:
    """Order a weight `(terms, out)` as panels `(panels, terms, width)`, `vectors` wide or as wide as `gemm_panel` takes."""
    terms, channels = weight.shape
    width = (vectors or panel_vectors(channels)) * LANES
    return weight.detach().reshape(terms, channels // width, width).transpose(0, 1)


def unpack_panels(panels: Tensor) -> Tensor:
    """Weight `(terms, out)` of panels `(panels, terms, width)`: the inverse of `pack_panels`."""
    return panels.transpose(0, 1).flatten(1)


def bias_or_zeros(bias: Tensor | None, weight: Tensor) -> Tensor:
    """The bias; zeros, one for each output channel of the weight, if there is none."""
    return weight.new_zeros(weight.shape[-1]) if bias is None else bias
