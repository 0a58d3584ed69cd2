"""Filters as products of polynomials, known from their values at a few points (Toom 1963; Cook 1966; Winograd 1980, "Arithmetic
Complexity of Computations"; Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
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
"""Of float64."""


class WinogradTransform(Protocol):
    """Some frames of a filter of few taps, in fewer products than frames times taps.

    With the matrices of an instance, `frames = to_frames @ ((of_taps @ taps) * (of_signal @ signal))`, and what a `plain` tap
    makes, which takes no part in that. Two of them are given as stages, of which the first comes first.
    """

    @property
    def frames(self) -> int:
        """Computed together."""

    @property
    def input_transform(self) -> tuple[Matrix, ...]:
        """The last is `(points, ...)`, the first `(..., frames of the signal)`."""

    @property
    def filter_transform(self) -> Matrix:
        """`(points, taps)`."""

    @property
    def output_transform(self) -> tuple[Matrix, ...]:
        """The last is `(frames, ...)`, the first `(..., points)`."""


def plain(own: WinogradTransform) -> int | None:
    """The number of the tap that no product takes, if there is one."""
    taps = np.flatnonzero(~own.filter_transform.any(axis=0))
    assert len(taps) < 2
    return int(taps[0]) if len(taps) else None


def whole(stages: Sequence[Matrix]) -> Matrix:
    return reduce(lambda made, stage: stage @ made, stages)


@dataclass(frozen=True)
class ToomCook:
    """Some frames of a filter of few taps, in as many products as there are points, one of which is infinity.

    Attributes:
        frames: Computed together.
        finite: The points but for infinity.
    """

    frames: int
    finite: tuple[float, ...]

    @property
    def taps(self) -> int:
        return len(self.finite) + 2 - self.frames

    @cached_property
    def input_transform(self) -> tuple[Matrix, ...]:
        """`(points, points)`: the polynomials that are zero at all points but one."""
        count = len(self.finite)
        others = [self.finite[:i] + self.finite[i + 1 :] for i in range(count)]
        rows = [[*np.poly(zeros)[::-1], 0.0] for zeros in others]
        return (np.array([*rows, np.poly(self.finite)[::-1]]),)

    @cached_property
    def filter_transform(self) -> Matrix:
        """`(points, taps)`: a polynomial's values, each divided by what the others of `input_transform` make of it there."""
        powers = np.vander(self.finite, self.taps, increasing=True)
        scales = [np.prod([point - other for other in self.finite if other != point]) for point in self.finite]
        return np.vstack([powers / np.array(scales)[:, None], np.eye(self.taps)[-1:]])

    @cached_property
    def output_transform(self) -> tuple[Matrix, ...]:
        """`(frames, points)`."""
        powers = np.vander(self.finite, self.frames, increasing=True).T
        return (np.hstack([powers, np.eye(self.frames)[:, -1:]]),)


@dataclass(frozen=True)
class NestedToomCook:
    """Taps in groups, which are the taps of `outer`, whose frames are as many frames as `inner` computes together.

    Attributes:
        inner: Of no more taps than frames. Groups are as long as its frames: a tap that is left over is plain.
        taps: In all, which may be fewer than the groups have.
    """

    outer: ToomCook
    inner: ToomCook
    taps: int

    @property
    def frames(self) -> int:
        return self.outer.frames * self.inner.frames

    @cached_property
    def input_transform(self) -> tuple[Matrix, ...]:
        (of_groups,), (of_window,) = self.outer.input_transform, self.inner.input_transform
        points, apart = len(of_window), self.inner.frames
        windows = np.zeros((len(of_groups) * points, apart * (len(of_groups) - 1) + points))
        for number in range(len(of_groups)):
            windows[number * points : (number + 1) * points, number * apart : number * apart + points] = of_window
        return windows, np.kron(of_groups, np.eye(points))

    @cached_property
    def filter_transform(self) -> Matrix:
        group = np.zeros((len(self.inner.filter_transform), self.inner.frames))
        group[:, : self.inner.taps] = self.inner.filter_transform
        return np.kron(self.outer.filter_transform, group)[:, : self.taps]

    @cached_property
    def output_transform(self) -> tuple[Matrix, ...]:
        (of_groups,), (of_window,) = self.outer.output_transform, self.inner.output_transform
        return np.kron(of_groups, np.eye(of_window.shape[1])), np.kron(np.eye(len(of_groups)), of_window)


F_5_2 = ToomCook(5, (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
"""Five frames of two taps in 6 products instead of 10; rounding is about twice that of the plain sum."""
F_3_2 = ToomCook(3, (0.0, 1.0, -1.0))
"""Three frames of two taps in 4 products instead of 6, for which fewer weights are read."""
F_4_3 = ToomCook(4, (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
"""Four frames of three taps in 6 products instead of 12; rounding is about twice that of the plain sum."""
F_8_7 = NestedToomCook(ToomCook(2, (0.0, 1.0)), F_4_3, 7)
"""Eight frames of seven taps, one of them plain, in 26 products instead of 56; rounding is little more than that of three."""
F_8_7_FAST = NestedToomCook(ToomCook(2, (0.0, 1.0)), ToomCook(4, (0.0, 1 / 2, -1 / 2, 1.0, -1.0, 2.0)), 7)
"""Eight frames of seven taps in 21 products; rounding is twice that again."""
