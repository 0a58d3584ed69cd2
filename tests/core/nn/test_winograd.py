"""Winograd transforms."""

from __future__ import annotations

import numpy as np
import pytest

from blazen_codec_core.nn.kernels.winograd import (
    F_3_2,
    F_4_3,
    F_5_2,
    F_8_7,
    F_8_7_FAST,
    NestedToomCook,
    ToomCook,
    compose,
    untransformed_tap,
)

FILTERS = [F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST]
OTHERS = [
    ToomCook(2, (0.0, 1.0, -1.0)),
    ToomCook(4, (0.0, 1.0, -1.0, 2.0, -2.0)),
    NestedToomCook(ToomCook(3, (0.0, 1.0, -1.0)), F_4_3, 7),
    NestedToomCook(ToomCook(2, (0.0, 1.0, -1.0)), ToomCook(3, (0.0, 1.0, -1.0, 2.0)), 9),
    NestedToomCook(ToomCook(2, (0.0, 1.0)), F_3_2, 5),
]


@pytest.mark.parametrize("transform", [*FILTERS, *OTHERS])
def test_transforms_give_the_filter(transform):
    generator, count, needed = (
        np.random.default_rng(0),
        transform.filter_transform.shape[1],
        transform.input_transform[0].shape[1],
    )
    taps, signal = generator.standard_normal(count), generator.standard_normal(transform.frames + count - 1)
    padded = np.pad(signal, (0, max(0, needed - len(signal))))
    products = (transform.filter_transform @ taps) * (compose(transform.input_transform) @ padded[:needed])
    made = compose(transform.output_transform) @ products
    if (tap := untransformed_tap(transform)) is not None:
        made += taps[tap] * signal[tap : tap + transform.frames]
    np.testing.assert_allclose(made, np.correlate(signal, taps), atol=1e-12)
    assert len(products) + (tap is not None) * transform.frames < transform.frames * count
