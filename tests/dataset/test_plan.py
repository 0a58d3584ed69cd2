"""Shards of a plan, and ids."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.dataset import plan
from blazen_codec_core.dataset.ids import Ids
from blazen_codec_core.dataset.items import AudioItem
from blazen_codec_core.dataset.sources import Source


def made(folder: Path, seconds: list[float], shard_seconds: float | None) -> plan.Plan:
    listed = [AudioItem(f"utterance {number} ä", "a.wav", lasts=own) for number, own in enumerate(seconds)]
    return plan.make(folder, Source(folder, iter(listed)), shard_seconds=shard_seconds, planned=lambda _: None)


@given(st.lists(st.floats(0, 500), min_size=1, max_size=60), st.one_of(st.none(), st.floats(1, 1000)))
def test_every_item_is_in_one_shard_in_order_and_shards_are_no_longer_than_asked(seconds, shard_seconds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planned = made(folder, seconds, shard_seconds)
        assert plan.read(folder) == planned
        by_shard = [list(planned.items(number)) for number in range(len(planned.cuts))]
        assert [item.id for item in itertools.chain(*by_shard)] == [f"utterance {number} ä" for number in range(len(seconds))]
        work = sum(seconds) + plan.SECONDS_A_FILE * len(seconds)
        target = shard_seconds or min(plan.LONGEST, max(plan.SHORTEST, work / plan.SHARDS))
        for cut, shard in zip(planned.cuts, by_shard, strict=True):
            assert cut.items == len(shard) > 0
            assert cut.seconds == pytest.approx(sum(item.lasts for item in shard), abs=1e-2)
            assert cut.work <= target + 1e-2 or cut.items == 1
        for before, after in itertools.pairwise(by_shard):  # and no shorter than need be
            joined = [*before, after[0]]
            assert sum(item.lasts for item in joined) + plan.SECONDS_A_FILE * len(joined) > target - 1e-6
        assert planned.digest == plan.digest_of(itertools.chain(*by_shard))


def test_shards_hold_only_so_many_items(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MOST_ITEMS", 4)
    assert [cut.items for cut in made(tmp_path, [0.0] * 10, None).cuts] == [4, 4, 2]


@given(st.lists(st.text(max_size=3), max_size=40))
def test_an_id_that_comes_twice_is_known_again(names):
    with tempfile.TemporaryDirectory() as folder:
        with Ids(Path(folder)) as ids:
            for name in names:
                ids.add(name)
            is_repeat = ids.repeats()
            assert [is_repeat(name) for name in names] == [name in names[:place] for place, name in enumerate(names)]
        assert not list(Path(folder).iterdir())


def test_another_list_has_another_digest():
    one, other = AudioItem("a", "a.wav"), AudioItem("a", "a.wav", start=0.5)
    assert plan.digest_of([one]) == plan.digest_of([one])
    assert len({plan.digest_of(items) for items in ([one], [other], [one, other], [])}) == 4


def test_tiny_recordings_are_some_hundreds_a_shard(tmp_path):
    cuts = made(tmp_path, [0.02] * 1000, None).cuts
    assert {cut.items for cut in cuts[:-1]} <= set(range(100, 500))


class Unsaid(AudioItem):
    """A recording whose container does not say how long it is."""

    def seconds(self, root: Path) -> None:
        return None


def test_lengths_that_nothing_says_are_estimated_from_sizes(tmp_path):
    (tmp_path / "a.mka").write_bytes(bytes(160_000))
    items = [Unsaid("a", "a.mka"), Unsaid("b", "b.tar", "b.mka", size=32_000), Unsaid("c", "missing.mka")]
    planned = plan.make(tmp_path, Source(tmp_path, iter(items)), shard_seconds=0.1, planned=lambda _: None)
    assert [cut.seconds for cut in planned.cuts] == [10.0, 2.0, 0.0]
    assert planned.is_guess
    assert plan.read(tmp_path) == planned
    assert not made(tmp_path, [1.0], None).is_guess
