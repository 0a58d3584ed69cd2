"""Filters as products of polynomials, known from their values at a few points (Toom 1963; Cook 1966; Winograd 1980, "Arithmetic
Complexity of Computations"; Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Points:
    """Some frames of a filter of few taps, in as many products as there are points, one of which is infinity.

    With the matrices of an instance, `frames = to_frames @ ((of_taps @ taps) * (of_signal @ signal))`, where the signal is of
    `len(finite) + 1` frames.

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
    def of_signal(self) -> NDArray[np.float64]:
        """`(points, points)`: the polynomials that are zero at all points but one."""
        count = len(self.finite)
        others = [self.finite[:i] + self.finite[i + 1 :] for i in range(count)]
        rows = [[*np.poly(zeros)[::-1], 0.0] for zeros in others]
        return np.array([*rows, np.poly(self.finite)[::-1]])

    @cached_property
    def of_taps(self) -> NDArray[np.float64]:
        """`(points, taps)`: a polynomial's values, each divided by what the others of `of_signal` make of it there."""
        powers = np.vander(self.finite, self.taps, increasing=True)
        scales = [np.prod([point - other for other in self.finite if other != point]) for point in self.finite]
        return np.vstack([powers / np.array(scales)[:, None], np.eye(self.taps)[-1:]])

    @cached_property
    def to_frames(self) -> NDArray[np.float64]:
        """`(frames, points)`."""
        powers = np.vander(self.finite, self.frames, increasing=True).T
        return np.hstack([powers, np.eye(self.frames)[:, -1:]])


OF_THREE = Points(4, (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2))
"""Four frames of three taps in 6 products instead of 12; rounding is about twice that of the plain sum."""
OF_TWO = Points(3, (0.0, 1.0, -1.0))
"""Three frames of two taps in 4 products instead of 6."""
