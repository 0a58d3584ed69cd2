"""Order of rows: shares of ranks and workers, fills of the buffer, packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.data import order
from blazen_codec_core.data.packing import pack

counts = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(counts, st.integers(1, 9), st.integers(1, 60), st.integers(1, 500), st.randoms(use_true_random=False), st.booleans())
def test_every_row_is_in_one_fill_of_one_consumer(rows, consumers, most_rows, most_bytes, random, even):
    sizes = [random.randint(1, 200) for _ in rows]
    groups = np.array(random.sample(range(len(rows)), len(rows)))
    total, seen, shares = sum(rows), [], []
    for number in range(consumers):
        span = order.Consumer(number, consumers).range(total, even)
        fills = list(order.fills(np.array(rows), np.array(sizes), groups, span, most_rows, most_bytes))
        for fill in fills:
            assert len(fill) == 1 or sum(part.rows for part in fill) <= most_rows
            assert len(fill) == 1 or sum(sizes[part.group] for part in fill) <= most_bytes
        parts = [part for fill in fills for part in fill]
        seen += [(part.group, row) for part in parts for row in range(part.first, part.last)]
        shares.append(sum(part.rows for part in parts))
    assert len(set(seen)) == len(seen) == sum(shares)
    assert set(seen) <= {(group, row) for group, count in enumerate(rows) for row in range(count)}
    assert max(shares) - min(shares) <= (not even)
    assert total - sum(shares) < (consumers if even else 1)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(50, 90))
def test_packing_places_every_sequence_once_within_the_room_and_leaves_no_two_rows_half_empty(lengths, room):
    rows = pack(lengths, room)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in row) for row in rows]
    assert all(length <= room for length in filled)
    assert sum(2 * length <= room for length in filled) <= 1


def test_a_sequence_that_does_not_fit_says_so():
    with pytest.raises(bc.InvalidInput, match="11 ids, and a row 10; raise pack, or crop"):
        pack([3, 11], 10)
