"""Iterable token datasets: each row once, in an order of the seed, resumed at the next item."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import blazen_codec_core as bc
from blazen_codec_core.data import IterableTokenDataset, Sample, TokenDataset, collate
from blazen_codec_core.data import iterable as module
from tests.helpers.token_shards import write

COUNTS = [7, 1, 12, 3]
ROWS = sum(COUNTS)
EVERY = [f"text {number}" for number in range(ROWS)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("data") / "tokens", COUNTS)
    return TokenDataset(folder, layout="snac_interleaved", columns=["text"], frames=8)


def texts(items) -> list[str]:
    flat = itertools.chain.from_iterable([item] if isinstance(item, Sample) else item for item in items)
    return [sample.columns["text"] for sample in flat]


class Worker:
    """What `get_worker_info` says in a worker."""

    def __init__(self, number: int, count: int) -> None:
        self.id, self.num_workers = number, count


def items_of(stream, ranks: int = 1, workers: int = 0, **options):
    """Items of each rank and worker, as processes would get them."""
    found = []
    for rank, worker in itertools.product(range(ranks), range(max(workers, 1))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "get_worker_info", lambda worker=worker: Worker(worker, workers) if workers else None)
            found.append(list(IterableTokenDataset(stream, rank=rank, ranks=ranks, **options)))
    return found


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(0, 4), st.integers(1, 30), st.sampled_from([None, 40, 200]), st.booleans())
def test_every_row_comes_once_an_epoch_over_all_ranks_and_workers(dataset, ranks, workers, buffer, pack, shuffle):
    found = items_of(dataset, ranks, workers, buffer=buffer, pack=pack, shuffle=shuffle)
    rows = texts(itertools.chain.from_iterable(found))
    assert sorted(rows) == sorted(EVERY)
    if pack:
        assert all(sum(map(len, item)) <= pack for items in found for item in items)
    elif not shuffle:
        assert rows == EVERY


@pytest.mark.parametrize(("context", "pack"), [("fork", None), ("spawn", 60)])
def test_workers_share_the_rows(dataset, context, pack):
    loader = DataLoader(
        dataset.iterable(buffer=6, pack=pack), batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context=context
    )
    assert sorted(text for batch in loader for text in batch.columns["text"]) == sorted(EVERY)


def test_even_shares_make_as_many_batches(dataset):
    found = items_of(dataset, 3, 2, even=True)
    assert {len(items) for items in found} == {ROWS // 6}
    rows = texts(itertools.chain.from_iterable(found))
    assert len(set(rows)) == len(rows)


def test_the_order_is_that_of_the_seed_and_the_epoch(dataset):
    stream = dataset.iterable(epochs=2)
    rows = texts(stream)
    assert rows == texts(stream)
    assert rows[:ROWS] != rows[ROWS:]
    assert sorted(rows) == sorted(EVERY * 2)
    stream.set_epoch(1)
    assert texts(stream)[:ROWS] == rows[ROWS:]
    stream.set_epoch(0)


def test_rows_of_different_row_groups_mix_in_the_buffer(dataset):
    numbers = [EVERY.index(text) for text in texts(dataset.iterable())]
    groups = [dataset.index.group_of(number)[0] for number in numbers]
    assert sum(one != other for one, other in itertools.pairwise(groups)) > 2 * len(dataset.index.ends)


def test_the_buffer_bounds_the_rows_in_memory(dataset, monkeypatch):
    read, held = dataset.index.read, []
    monkeypatch.setattr(dataset.index, "read", lambda *own: held.append(len(rows := read(*own))) or rows)
    stream = iter(dataset.iterable(buffer=10))
    next(stream)
    assert sum(held) <= 10


@settings(max_examples=25)
@given(st.integers(1, 2 * ROWS), st.integers(1, 30), st.sampled_from([None, 60]), st.booleans())
def test_a_state_resumes_at_the_next_item(dataset, taken, buffer, pack, shuffle):
    options = {"buffer": buffer, "pack": pack, "shuffle": shuffle, "epochs": 2}
    stream = dataset.iterable(**options)
    items = iter(stream)
    before = list(itertools.islice(items, taken))
    state = stream.state_dict()
    after = list(items)
    resumed = dataset.iterable(**options)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    again = list(resumed)
    assert texts(again) == texts(after)
    assert [[own.ids.tolist() for own in ([item] if isinstance(item, Sample) else item)] for item in again] == [
        [own.ids.tolist() for own in ([item] if isinstance(item, Sample) else item)] for item in after
    ]
    assert texts(resumed) == texts(before) + texts(after)  # and then from the start


def test_a_state_of_other_settings_is_refused(dataset):
    stream = dataset.iterable(buffer=6)
    next(iter(stream))
    for options in ({"buffer": 7}, {"buffer": 6, "rank": 0, "ranks": 2}, {"buffer": 6, "pack": 90}):
        other = dataset.iterable(**options)
        other.load_state_dict(stream.state_dict())
        with pytest.raises(bc.InvalidInput, match="settings"):
            next(iter(other))


@pytest.mark.parametrize("state", [None, {}, {"epoch": 0}, {"epoch": -1, "fill": 0, "item": 0, "until": 1, "settings": ""}, [1]])
def test_what_is_no_state_is_refused(dataset, state):
    with pytest.raises(bc.InvalidInput, match="state"):
        dataset.iterable().load_state_dict(state)


@pytest.mark.parametrize("pack", [None, 60])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_goes_on_after_batches_that_are_skipped(dataset, workers, pack):
    def loader(stream):
        return DataLoader(stream, batch_size=2, num_workers=workers, collate_fn=collate)

    options = {"epochs": None, "buffer": 5, "pack": pack}
    rows = [batch.columns["text"] for batch in itertools.islice(loader(dataset.iterable(**options)), 24)]
    for skipped in (1, 4, 11, 17):
        stream = dataset.iterable(**options)
        stream.skip_batches(skipped, 2)
        assert [batch.columns["text"] for batch in itertools.islice(loader(stream), 24 - skipped)] == rows[skipped:]


def test_the_next_epoch_is_not_skipped(dataset):
    stream = dataset.iterable()
    stream.skip_batches(2, 4)
    assert len(list(stream)) == ROWS - 8
    stream.skip_batches(2, 4)
    stream.set_epoch(0)
    assert len(list(stream)) == ROWS


def test_ranks_are_those_of_torchrun(dataset, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert texts(dataset.iterable()) == texts(dataset.iterable(rank=1, ranks=2))


def test_a_process_group_goes_before_the_environment(dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        stream = pickle.loads(pickle.dumps(dataset.iterable()))  # as for workers by spawn, which have no group
    finally:
        distributed.destroy_process_group()
    assert sorted(texts(stream)) == sorted(EVERY)


@pytest.mark.parametrize(
    "options",
    [
        {"buffer": 0},
        {"buffer": None},
        {"epochs": 0},
        {"pack": -1},
        {"rank": 0},
        {"ranks": 2},
        {"rank": 2, "ranks": 2},
        {"pack": "x"},
    ],
)
def test_options_that_are_no_counts_are_refused(dataset, options):
    with pytest.raises(bc.InvalidInput, match="expected"):
        dataset.iterable(**options)


@pytest.mark.parametrize("skipped", [(-1, 2), (1, 0), ("a", 1)])
def test_batches_to_skip_are_counts(dataset, skipped):
    with pytest.raises(bc.InvalidInput, match="cannot be skipped"):
        dataset.iterable().skip_batches(*skipped)


def test_a_recording_that_is_longer_than_a_packed_row_says_what_to_do(dataset):
    with pytest.raises(bc.InvalidInput, match="raise pack, or crop"):
        list(dataset.iterable(pack=8))


def test_an_error_in_a_worker_is_the_same_error(tmp_path):
    folder = write(tmp_path / "tokens", [3, 3])
    dataset = TokenDataset(folder, layout="snac_interleaved")
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(bc.CorruptFile, match="tokens-00001"):
        list(DataLoader(dataset.iterable(), batch_size=2, num_workers=1, collate_fn=collate))


@pytest.mark.slow  # torchdata is among the readers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pack", [None, 60])
def test_a_stateful_loader_resumes_at_the_next_batch(dataset, workers, pack):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader():
        return loaders.StatefulDataLoader(
            dataset.iterable(buffer=6, pack=pack), batch_size=2, num_workers=workers, collate_fn=collate
        )

    rows = [batch.columns["text"] for batch in loader()]
    for taken in range(1, len(rows)):
        first = loader()
        assert [batch.columns["text"] for batch in itertools.islice(first, taken)] == rows[:taken]
        second = loader()
        second.load_state_dict(first.state_dict())
        assert [batch.columns["text"] for batch in second] == rows[taken:]
        assert [batch.columns["text"] for batch in second] == rows  # the epoch after


def test_batches_move_between_devices(dataset):
    batch = collate(list(dataset.iterable())).to("meta")
    assert {tensor.device for tensor in (batch.inputs, batch.labels, batch.documents)} == {torch.device("meta")}
