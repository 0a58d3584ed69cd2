"""Filters by fewer products: the points that they are taken at."""

from __future__ import annotations

import numpy as np
import pytest

from blazen_codec_core.nn.kernels.winograd import (
    OF_SEVEN,
    OF_SEVEN_ROUGHLY,
    OF_THREE,
    OF_TWO,
    OF_TWO_HEAVY,
    Nested,
    Points,
    plain,
    whole,
)

FILTERS = [OF_TWO, OF_TWO_HEAVY, OF_THREE, OF_SEVEN, OF_SEVEN_ROUGHLY]
OTHERS = [
    Points(2, (0.0, 1.0, -1.0)),
    Points(4, (0.0, 1.0, -1.0, 2.0, -2.0)),
    Nested(Points(3, (0.0, 1.0, -1.0)), OF_THREE, 7),
    Nested(Points(2, (0.0, 1.0, -1.0)), Points(3, (0.0, 1.0, -1.0, 2.0)), 9),
    Nested(Points(2, (0.0, 1.0)), OF_TWO_HEAVY, 5),
]


@pytest.mark.parametrize("own", [*FILTERS, *OTHERS])
def test_the_points_give_the_filter(own):
    generator, count, needed = np.random.default_rng(0), own.of_taps.shape[1], own.of_signal[0].shape[1]
    taps, signal = generator.standard_normal(count), generator.standard_normal(own.frames + count - 1)
    padded = np.pad(signal, (0, max(0, needed - len(signal))))
    products = (own.of_taps @ taps) * (whole(own.of_signal) @ padded[:needed])
    made = whole(own.to_frames) @ products
    if (tap := plain(own)) is not None:
        made += taps[tap] * signal[tap : tap + own.frames]
    np.testing.assert_allclose(made, np.correlate(signal, taps), atol=1e-12)
    assert len(products) + (tap is not None) * own.frames < own.frames * count
