"""Winograd and Toom-Cook transforms F(m, r): filters as products of polynomials, known from their values at a few points.

Sources: Toom 1963; Cook 1966; Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray 2016, "Fast Algorithms for
Convolutional Neural Networks".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...forks import cached_property

Matrix = NDArray[Any]
"""Float64."""


class WinogradTransform(Protocol):
    """F(m, r): m outputs of an r-tap FIR filter in fewer than m * r multiplications.

    With these matrices, `outputs = output_transform @ ((filter_transform @ taps) * (input_transform @ signal))`. One tap may be
    left out, the `untransformed_tap`, and is added by itself. Input and output transforms are stages, applied in order.
    """

    @property
    def frames(self) -> int:
        """Number of outputs m."""

    @property
    def input_transform(self) -> tuple[Matrix, ...]:
        """Bᵀ in stages, from `(..., frames of the signal)` to `(points, ...)`."""

    @property
    def filter_transform(self) -> Matrix:
        """G, `(points, taps)`."""

    @property
    def output_transform(self) -> tuple[Matrix, ...]:
        """Aᵀ in stages, from `(..., points)` to `(frames, ...)`."""


def untransformed_tap(transform: WinogradTransform) -> int | None:
    """Number of the tap that the transform leaves out, if there is one."""
    taps = np.flatnonzero(~transform.filter_transform.any(axis=0))
    assert len(taps) < 2
    return int(taps[0]) if len(taps) else None


def tap_points(transform: WinogradTransform) -> dict[int, tuple[int, float]]:
    """Points where the transformed filter is a tap times a power of two, which is exact: `(point, factor)` by tap."""
    found = {}
    for point, row in enumerate(transform.filter_transform):
        taps = np.flatnonzero(row)
        factor = row[taps[0]]
        exact = np.copysign(2.0 ** np.round(np.log2(abs(factor))), factor)
        if len(taps) == 1 and np.isclose(factor, exact, rtol=1e-12):
            found[int(taps[0])] = point, float(exact)
    return found


def compose(stages: Sequence[Matrix]) -> Matrix:
    """Product of stages as one matrix."""
    return reduce(lambda product, stage: stage @ product, stages)


@dataclass(frozen=True)
class ToomCook:
    """F(m, r) by interpolation at m + r - 1 points, one of which is infinity.

    Attributes:
        frames: Number of outputs m.
        finite: The points other than infinity.
    """

    frames: int
    finite: tuple[float, ...]

    @property
    def taps(self) -> int:
        """Number of taps r."""
        return len(self.finite) + 2 - self.frames

    @cached_property
    def _scales(self) -> Matrix:
        """For each finite point, the value there of the polynomial that is zero at all others."""
        return np.array([np.prod([point - other for other in self.finite if other != point]) for point in self.finite])

    @cached_property
    def input_transform(self) -> tuple[Matrix, ...]:
        """Bᵀ, `(points, points)`: for each point, the polynomial that is zero at all others, and positive there."""
        count = len(self.finite)
        others = [self.finite[:i] + self.finite[i + 1 :] for i in range(count)]
        rows = np.array([[*np.poly(zeros)[::-1], 0.0] for zeros in others]) * np.sign(self._scales)[:, None]
        return (np.vstack([rows, np.poly(self.finite)[::-1]]),)

    @cached_property
    def filter_transform(self) -> Matrix:
        """G, `(points, taps)`: the filter's polynomial at each point, over the value there of that point's row of Bᵀ."""
        powers = np.vander(self.finite, self.taps, increasing=True)
        return np.vstack([powers / np.abs(self._scales)[:, None], np.eye(self.taps)[-1:]])

    @cached_property
    def output_transform(self) -> tuple[Matrix, ...]:
        """Aᵀ, `(frames, points)`."""
        powers = np.vander(self.finite, self.frames, increasing=True).T
        return (np.hstack([powers, np.eye(self.frames)[:, -1:]]),)


@dataclass(frozen=True)
class NestedToomCook:
    """F(m, r) as `outer` over groups of taps, each group by `inner`.

    Attributes:
        outer: Its taps are the groups, and each of its outputs is as many frames as `inner` computes.
        inner: Has at most as many taps as frames. Groups are as long as its frames, so that a tap of each may be untransformed.
        taps: Number of taps r; the groups may have more.
    """

    outer: ToomCook
    inner: ToomCook
    taps: int

    @property
    def frames(self) -> int:
        """Number of outputs m."""
        return self.outer.frames * self.inner.frames

    @cached_property
    def input_transform(self) -> tuple[Matrix, ...]:
        """Bᵀ in two stages: that of `inner` for each group's window, then that of `outer` across groups."""
        (outer,), (inner,) = self.outer.input_transform, self.inner.input_transform
        points, stride = len(inner), self.inner.frames
        windows = np.zeros((len(outer) * points, stride * (len(outer) - 1) + points))
        for group in range(len(outer)):
            windows[group * points : (group + 1) * points, group * stride : group * stride + points] = inner
        return windows, np.kron(outer, np.eye(points))[self._needed]

    @cached_property
    def _all_points(self) -> Matrix:
        group = np.zeros((len(self.inner.filter_transform), self.inner.frames))
        group[:, : self.inner.taps] = self.inner.filter_transform
        return np.kron(self.outer.filter_transform, group)[:, : self.taps]

    @cached_property
    def _needed(self) -> NDArray[np.bool_]:
        """Points at which filters are not zero; the last group may lack the tap that is alone in a point."""
        return np.asarray(self._all_points.any(axis=1))

    @cached_property
    def filter_transform(self) -> Matrix:
        """G, `(points, taps)`."""
        return self._all_points[self._needed]

    @cached_property
    def output_transform(self) -> tuple[Matrix, ...]:
        """Aᵀ in two stages: that of `outer` across groups, then that of `inner` within each."""
        (outer,), (inner,) = self.outer.output_transform, self.inner.output_transform
        return np.kron(outer, np.eye(inner.shape[1]))[:, self._needed], np.kron(np.eye(len(outer)), inner)


F_5_2 = ToomCook(5, (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
"""F(5, 2): 6 multiplications instead of 10; its rounding error is about twice that of the plain sum."""
F_3_2 = ToomCook(3, (0.0, 1.0, -1.0))
"""F(3, 2): 4 multiplications instead of 6, with fewer weights to read than F(5, 2)."""
F_4_3 = ToomCook(4, (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
"""F(4, 3): 6 multiplications instead of 12; its rounding error is about twice that of the plain sum."""
F_8_7 = NestedToomCook(ToomCook(2, (0.0, 1.0)), F_4_3, 7)
"""F(8, 7) with one untransformed tap: 26 multiplications instead of 56; its rounding error is little more than F(4, 3)'s."""
F_8_7_FAST = NestedToomCook(ToomCook(2, (0.0, 1.0)), ToomCook(4, (0.0, 1 / 2, -1 / 2, 1.0, -1.0, 2.0)), 7)
"""F(8, 7) with every tap transformed: 20 multiplications; its rounding error is about twice that of `F_8_7`."""
