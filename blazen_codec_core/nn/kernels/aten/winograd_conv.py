"""Convolutions in fewer products than they have taps (Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray
2016, "Fast Algorithms for Convolutional Neural Networks").

Four frames of a filter of three taps are the product of two polynomials of degree 3 and 2, which is known from its values at
six points: six products instead of twelve. The points 0, ±2/3, ±3/2 and infinity keep the rounding within about twice that
of the plain sum. Of a filter of seven taps, 0 to 2 and 4 to 6 are taken so, both at the same values of the signal, and tap 3
is plain: 16 products instead of 28.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES = 4
"""Computed together."""
TAPS = 3
"""Taken together; the one after them is plain."""
POINTS = 6
NEAR, FAR = 2 / 3, 3 / 2
"""The points on either side of 0; their product is 1."""
BLOCK_VALUES = 1 << 20
"""So that they stay in cache, and products are still thick enough."""


def filter_transform(weight: Tensor) -> tuple[Tensor, ...]:
    """Three taps `(3, in, out)` as the polynomial's values at 0, ±near, ±far and infinity, each divided by what the other
    points make of it there (the Lagrange basis).
    """
    first, second, third = weight.double().unbind()
    near, far = NEAR**2, FAR**2

    def at(point: float, other: float) -> tuple[Tensor, Tensor]:
        scale = 2 * point**2 * (point**2 - other)
        even, odd = first + point**2 * third, point * second
        return (even + odd) / scale, (even - odd) / scale

    values = (first / (near * far), *at(NEAR, far), *at(FAR, near), third)
    return tuple(value.to(weight.dtype).contiguous() for value in values)


class AtenWinogradConv1d:
    """A convolution of stride 1 whose kernel is 3 taps, or 3 + 1 + 3, and so on; see `aten.conv.Conv1dKernel`.

    With a dilation `d` the signal is taken as rows of `d` frames, of which four at a time are the four frames above.

    Args:
        weight: `(kernel, in, out)`.
        product: Makes of taps, a bias and a dilation what computes their plain convolution.
        block_values: How much of a signal is worked on at a time.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int,
        product: Callable[[Sequence[Tensor], Tensor | None, int], Callable[[Tensor, int], Tensor]],
        block_values: int = BLOCK_VALUES,
    ) -> None:
        kernel, self._channels, self._out = weight.shape
        self._dilation, self._block_values = dilation, block_values
        starts = range(0, kernel, TAPS + 1)
        values = zip(*(filter_transform(weight[start : start + TAPS]) for start in starts), strict=True)
        self._products = [product(of_point, None, dilation) for of_point in values]
        self._reach = len(starts)
        """Rows of four that a frame's window touches."""
        self._bias = weight.new_zeros(self._out) if bias is None else bias
        self._plain = product(weight[TAPS :: TAPS + 1].unbind(), bias, FRAMES * dilation) if self._reach > 1 else None

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        per_row = FRAMES * self._dilation
        rows, block = -(-frames // per_row), max(1, self._block_values // (per_row * max(self._channels, self._out)))
        y = x.new_empty(x.shape[0], rows * per_row, self._out)
        for signal, made in zip(x, y, strict=True):
            for start in range(0, rows * per_row, block * per_row):
                own = made[start : start + block * per_row]
                needed = own.shape[0] + self._reach * per_row
                part = signal[start : start + needed]
                self._compute(part if len(part) == needed else F.pad(part, (0, 0, 0, needed - len(part))), own)
        return y[:, :frames]

    def _compute(self, x: Tensor, y: Tensor) -> None:
        """Fills `y`, rows of four times `dilation` frames, from as many frames as they need."""
        d, count = self._dilation, y.shape[0] // FRAMES
        input_transform = spread(x, d, count + (self._reach - 1) * d)
        made = [product(values[None], count)[0] for product, values in zip(self._products, input_transform, strict=True)]
        plain = self._plain(x[None, TAPS * d :], y.shape[0])[0] if self._plain else self._bias.expand_as(y).contiguous()
        gather(made, plain, d, y)


def spread(x: Tensor, dilation: int, count: int) -> Sequence[Tensor]:
    """Winograd's input transform: the transposed polynomials of the points at six consecutive frames.

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


def gather(made: Sequence[Tensor], plain: Tensor, dilation: int, y: Tensor) -> None:
    """Writes what the products at the six points, `(rows * dilation, out)` each, make together, added to plain ones.

    Args:
        plain: `(4 * rows * dilation, out)`, as is `y`.
    """
    near, near_odd = made[1] + made[2], made[1] - made[2]
    far, far_odd = made[3] + made[4], made[3] - made[4]
    frames = [
        made[0] + near + far,
        torch.mul(near_odd, NEAR).add_(far_odd, alpha=FAR),
        near.mul_(NEAR**2).add_(far, alpha=FAR**2),
        near_odd.mul_(NEAR**3).add_(far_odd, alpha=FAR**3).add_(made[5]),
    ]
    row = (-1, dilation * y.shape[1])
    together = torch.stack([frame.view(row) for frame in frames], dim=1)
    torch.add(together.view(y.shape), plain, out=y)
