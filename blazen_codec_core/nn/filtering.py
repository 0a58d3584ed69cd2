"""Convolutions in fewer products than they have taps (Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray
2016, "Fast Algorithms for Convolutional Neural Networks").

Four frames of a filter of three taps are the product of two polynomials of degree 3 and 2, which is known from its values at
six points: six products instead of twelve. The points 0, ±2/3, ±3/2 and infinity keep the rounding within about twice that
of the plain sum. Of a filter of seven taps, 0 to 2 and 4 to 6 are taken so, both at the same values of the signal, and tap 3
is plain: 16 products instead of 28.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES = 4
"""Computed together."""
TAPS = 3
"""Taken together; the one after them is plain."""
NEAR, FAR = 2 / 3, 3 / 2
"""The points on either side of 0; their product is 1."""
BLOCK_VALUES = 1 << 20
"""So that they stay in cache, and products are still thick enough."""


def values_of_taps(weight: Tensor) -> tuple[Tensor, ...]:
    """Three taps `(3, in, out)` as the polynomial's values at 0, ±near, ±far and infinity, each divided by what the other
    points make of it there (the Lagrange basis)."""
    first, second, third = weight.double().unbind()
    near, far = NEAR**2, FAR**2

    def at(point: float, other: float) -> tuple[Tensor, Tensor]:
        scale = 2 * point**2 * (point**2 - other)
        even, odd = first + point**2 * third, point * second
        return (even + odd) / scale, (even - odd) / scale

    values = (first / (near * far), *at(NEAR, far), *at(FAR, near), third)
    return tuple(value.to(weight.dtype).contiguous() for value in values)


class FewerProducts:
    """A convolution of stride 1 whose kernel is 3 taps, or 3 + 1 + 3, and so on; see `kernels.Convolution`.

    With a dilation `d` the signal is taken as rows of `d` frames, of which four at a time are the four frames above.

    Args:
        weight: `(kernel, in, out)`.
        block_values: How much of a signal is worked on at a time.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int, block_values: int = BLOCK_VALUES) -> None:
        kernel, self._channels, self._out = weight.shape
        self._bias, self._dilation, self._block_values = bias, dilation, block_values
        starts = range(0, kernel, TAPS + 1)
        self._values = [values_of_taps(weight[start : start + TAPS]) for start in starts]
        self._plain = [weight[start + TAPS] for start in starts[:-1]]
        self._reach = len(starts)
        """Rows of four that a frame's window touches."""

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        per_row = FRAMES * self._dilation
        rows, block = -(-frames // per_row), max(1, self._block_values // (per_row * max(self._channels, self._out)))
        y = x.new_empty(x.shape[0], rows, FRAMES, self._dilation * self._out)
        for signal, made in zip(x, y, strict=True):
            for start in range(0, rows, block):
                self._compute(signal[start * per_row :], made[start : start + block])
        y = y.view(x.shape[0], -1, self._out)[:, :frames]
        return y if self._bias is None else y.add_(self._bias)

    def _compute(self, x: Tensor, y: Tensor) -> None:
        """Fills `y`, rows of four times `dilation` frames, from a signal that is long enough, or has ended."""
        d, channels, rows = self._dilation, self._channels, y.shape[0]
        needed = (rows + self._reach) * FRAMES * d
        x = x[:needed] if x.shape[0] >= needed else F.pad(x, (0, 0, 0, needed - x.shape[0]))
        phases = x.reshape(rows + self._reach, FRAMES, d * channels).transpose(0, 1).reshape(FRAMES, -1, channels)
        count = (rows + self._reach - 1) * d
        x0, x1, x2, x3, x4, x5 = [*phases[:, :count], *phases[:2, d : d + count]]
        of_signal = _values_of_signal(x0, x1, x2, x3, x4, x5)

        def product(point: int, into: Tensor | None = None) -> Tensor:
            for number, values in enumerate(self._values):
                of = of_signal[point][number * d : (number + rows) * d]
                into = torch.mm(of, values[point]) if into is None else into.addmm_(of, values[point])
            assert into is not None
            return into

        above, below = product(1), product(2)
        near, near_odd = above + below, above.sub_(below)
        above, below = product(3), product(4)
        far, far_odd = above + below, above.sub_(below)
        made = [
            product(0, near + far),
            torch.mul(near_odd, NEAR).add_(far_odd, alpha=FAR),
            near.mul_(NEAR**2).add_(far, alpha=FAR**2),
            product(5, near_odd.mul_(NEAR**3).add_(far_odd, alpha=FAR**3)),
        ]
        for number, tap in enumerate(self._plain):
            for frame, row in enumerate(made, TAPS):
                later = number + frame // FRAMES
                row.addmm_(phases[frame % FRAMES, later * d : (later + rows) * d], tap)
        torch.stack([row.view(rows, -1) for row in made], dim=1, out=y)


def _values_of_signal(x0: Tensor, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, x5: Tensor) -> list[Tensor]:
    """What the values of the taps are multiplied with: the transposed polynomials of the points at six consecutive frames."""
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
