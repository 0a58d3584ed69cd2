"""Winograd convolution F(4, 3) in PyTorch's operations (see `winograd.F_4_3`, whose points it takes).

Of a filter of seven taps, taps 0 to 2 and 4 to 6 are transformed, both at the same values of the signal, and tap 3 is added by
itself: 16 multiplications instead of 28 for four frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..winograd import F_4_3

FRAMES, TAPS = F_4_3.frames, F_4_3.taps
NEAR, FAR = F_4_3.finite[1], F_4_3.finite[3]
"""The points are 0, ±NEAR, ±FAR and infinity."""
TILE_VALUES = 1 << 20
"""Values of a tile, which stays in cache and is large enough for efficient GEMMs."""


def filter_transform(weight: Tensor) -> tuple[Tensor, ...]:
    """Filter transform (G) of three taps `(3, in, out)`: one `(in, out)` a point."""
    matrix = torch.from_numpy(F_4_3.filter_transform)
    points = torch.einsum("pk,kio->pio", matrix, weight.detach().double().cpu())
    return tuple(point.to(weight.device, weight.dtype).contiguous() for point in points)


class AtenWinogradConv1d:
    """A convolution of stride 1 whose kernel is 3 taps, or 3 + 1 + 3, and so on; see `aten.conv.Conv1dKernel`.

    With a dilation d the signal is viewed as rows of d frames, of which four at a time are the four frames of F(4, 3).

    Args:
        weight: `(kernel, in, out)`.
        make_gemm: Makes a kernel from taps, a bias and a dilation, for the transformed and the untransformed taps.
        tile_values: Values of the signal that are processed at a time.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int,
        make_gemm: Callable[[Sequence[Tensor], Tensor | None, int], Callable[[Tensor, int], Tensor]],
        tile_values: int = TILE_VALUES,
    ) -> None:
        kernel, self._channels, self._out = weight.shape
        self._dilation, self._tile_values = dilation, tile_values
        starts = range(0, kernel, TAPS + 1)
        by_point = zip(*(filter_transform(weight[start : start + TAPS]) for start in starts), strict=True)
        self._gemms = [make_gemm(taps, None, dilation) for taps in by_point]
        self._reach = len(starts)
        """Rows of four that a frame's window touches."""
        self._bias = weight.new_zeros(self._out) if bias is None else bias
        untransformed = weight[TAPS :: TAPS + 1].unbind()
        self._untransformed = make_gemm(untransformed, bias, FRAMES * dilation) if self._reach > 1 else None

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        per_row = FRAMES * self._dilation
        rows, tile = -(-frames // per_row), max(1, self._tile_values // (per_row * max(self._channels, self._out)))
        y = x.new_empty(x.shape[0], rows * per_row, self._out)
        for signal, out in zip(x, y, strict=True):
            for start in range(0, rows * per_row, tile * per_row):
                dst = out[start : start + tile * per_row]
                needed = dst.shape[0] + self._reach * per_row
                src = signal[start : start + needed]
                self._compute(src if len(src) == needed else F.pad(src, (0, 0, 0, needed - len(src))), dst)
        return y[:, :frames]

    def _compute(self, x: Tensor, y: Tensor) -> None:
        """Fill `y`, rows of four times `dilation` frames, from the frames that they need."""
        d, count = self._dilation, y.shape[0] // FRAMES
        points = input_transform(x, d, count + (self._reach - 1) * d)
        products = [gemm(point[None], count)[0] for gemm, point in zip(self._gemms, points, strict=True)]
        gemm = self._untransformed
        addend = gemm(x[None, TAPS * d :], y.shape[0])[0] if gemm else self._bias.expand_as(y).contiguous()
        output_transform(products, addend, d, y)


def input_transform(x: Tensor, dilation: int, count: int) -> Sequence[Tensor]:
    """Input transform (Bᵀd) at six consecutive frames, in even and odd parts.

    Args:
        x: `(frames, channels)`, at least `4 * count + 2 * dilation` frames.

    Returns:
        For each point `(count, channels)`, of every fourth row of `dilation` frames.
    """
    rows = count // dilation
    phases = x[: (rows + 1) * FRAMES * dilation].reshape(rows + 1, FRAMES, -1).transpose(0, 1).reshape(FRAMES, -1, x.shape[1])
    x0, x1, x2, x3, x4, x5 = [*phases[:, :count], *phases[:2, dilation : dilation + count]]
    near, far = NEAR**2, FAR**2
    even, odd = torch.sub(x4, x2, alpha=far), torch.sub(x3, x1, alpha=far)
    even_far, odd_far = torch.sub(x4, x2, alpha=near), torch.sub(x3, x1, alpha=near)
    return [
        torch.sub(x4, x2, alpha=near + far).add_(x0),
        torch.add(even, odd, alpha=NEAR),
        even.sub_(odd, alpha=NEAR),
        torch.add(even_far, odd_far, alpha=FAR),
        even_far.sub_(odd_far, alpha=FAR),
        torch.sub(x5, x3, alpha=near + far).add_(x1),
    ]


def output_transform(products: Sequence[Tensor], addend: Tensor, dilation: int, y: Tensor) -> None:
    """Output transform (Aᵀ) of the products at the six points, `(rows * dilation, out)` each, added to `addend`.

    Args:
        addend: `(4 * rows * dilation, out)`, as is `y`.
    """
    near, near_odd = products[1] + products[2], products[1] - products[2]
    far, far_odd = products[3] + products[4], products[3] - products[4]
    frames = [
        products[0] + near + far,
        torch.mul(near_odd, NEAR).add_(far_odd, alpha=FAR),
        near.mul_(NEAR**2).add_(far, alpha=FAR**2),
        near_odd.mul_(NEAR**3).add_(far_odd, alpha=FAR**3).add_(products[5]),
    ]
    row = (-1, dilation * y.shape[1])
    interleaved = torch.stack([frame.view(row) for frame in frames], dim=1)
    torch.add(interleaved.view(y.shape), addend, out=y)
