"""Token datasets by number: rows, crops, columns, remote folders, and what is wrong with a folder."""

from __future__ import annotations

import dataclasses
import pickle
import zipfile

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import blazen_codec_core as bc
from blazen_codec_core.conformance import strategies
from blazen_codec_core.data import TokenDataset, collate
from blazen_codec_core.dataset import row_groups, shards
from blazen_codec_core.tokens.layouts import Specials
from tests.helpers.token_shards import ENCODEC, layout_of, spec_of, tokens_of, write

COUNTS = [7, 1, 12]
ROWS = sum(COUNTS)
SLOTS = 11
"""Ids of a group of four frames."""


@pytest.fixture(params=["parquet", "tar"])
def folder(request, tmp_path):
    return write(tmp_path / "tokens", COUNTS, format=request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "tokens", COUNTS)


def ids_of(number: int, layout: str = "snac_interleaved") -> list[int]:
    return layout_of(layout).pack(tokens_of(number)).tolist()


def test_item_i_is_row_i_with_its_columns(folder):
    dataset = TokenDataset(folder, layout="snac_interleaved", columns=["text", "speaker"])
    assert len(dataset) == ROWS
    for number in (*range(ROWS), -1):
        sample = dataset[number]
        assert sample.ids.tolist() == ids_of(number % ROWS)
        assert sample.columns == {"text": f"text {number % ROWS}", "speaker": number % ROWS % 3}


def test_several_folders_follow_each_other(tmp_path):
    folders = [write(tmp_path / "a", [3]), write(tmp_path / "b", [2], format="tar")]
    dataset = TokenDataset(folders, layout="snac_interleaved")
    assert [sample.ids.tolist() for sample in dataset] == [ids_of(number) for number in (0, 1, 2, 0, 1)]


@pytest.mark.parametrize(("format", "context"), [("parquet", None), ("tar", "fork"), ("tar", "spawn")])
def test_a_loader_gets_all_rows_in_any_kind_of_process(tmp_path, format, context):
    dataset = TokenDataset(write(tmp_path / "tokens", COUNTS, format=format), layout="snac_interleaved", columns=["text"])
    loader = DataLoader(
        dataset, batch_size=3, shuffle=True, num_workers=2 * bool(context), collate_fn=collate, multiprocessing_context=context
    )
    texts = [text for batch in loader for text in batch.columns["text"]]
    assert sorted(texts) == sorted(f"text {number}" for number in range(ROWS))


def test_a_pickled_dataset_is_the_same(folder):
    dataset = TokenDataset(folder, layout="snac_interleaved")
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].ids, dataset[3].ids)


def test_an_access_reads_one_row_group_and_a_batch_each_of_its_row_groups_once(plain, monkeypatch):
    dataset = TokenDataset(plain, layout="snac_interleaved")
    read, calls = dataset.index.read, []
    monkeypatch.setattr(dataset.index, "read", lambda group, *rest: calls.append(group) or read(group, *rest))
    dataset[4]
    assert calls == [0]
    dataset.__getitems__([19, 18, 17, 8, 19, 5])
    assert calls == [0, 1, 3, 4, 5]


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 19))
def test_a_crop_is_a_window_on_groups_of_frames(plain, groups, epoch, row):
    whole = layout_of("snac_interleaved").pack(tokens_of(row)).reshape(-1, SLOTS)
    layout = dataclasses.replace(layout_of("snac_interleaved"), markers=Specials(end=0))
    dataset = TokenDataset(plain, layout=layout, frames=groups * 4, specials=True, seed=1)
    dataset.set_epoch(epoch)
    ids = dataset[row].ids
    ends, table = len(ids) % SLOTS == 1, ids[: len(ids) // SLOTS * SLOTS].reshape(-1, SLOTS).numpy()
    assert len(table) == min(groups, len(whole))
    [start] = [start for start in range(len(whole) - len(table) + 1) if np.array_equal(whole[start : start + len(table)], table)]
    assert ends == (start + len(table) == len(whole))
    assert torch.equal(dataset[row].ids, ids)


def test_crops_move_from_epoch_to_epoch_unless_they_are_to_start_at_the_start(plain):
    row = max(range(ROWS), key=lambda row: tokens_of(row).frames)
    random, first = (TokenDataset(plain, layout="snac_interleaved", frames=4, crop=crop) for crop in ("random", "start"))
    found = set()
    for epoch in range(30):
        random.set_epoch(epoch)
        found.add(tuple(random[row].ids.tolist()))
        first.set_epoch(epoch)
        assert first[row].ids.tolist() == ids_of(row)[:SLOTS]
    assert len(found) == tokens_of(row).frames // 4


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_go_on_see_the_epoch(plain, context):
    dataset = TokenDataset(plain, layout="snac_interleaved", frames=4)
    loader = DataLoader(
        dataset, batch_size=ROWS, num_workers=1, persistent_workers=True, collate_fn=collate, multiprocessing_context=context
    )
    first, again = (next(iter(loader)).inputs for _ in range(2))
    dataset.set_epoch(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, next(iter(loader)).inputs)


def test_the_first_codebooks_alone(tmp_path):
    dataset = TokenDataset(write(tmp_path / "tokens", [4], ENCODEC), layout="musicgen_delay", num_codebooks=2)
    assert np.array_equal(dataset[1].ids[:-1, 0], tokens_of(1, ENCODEC).codes[0][0])
    assert dataset[1].ids.shape[1] == 2
    assert dataset.vocabulary == layout_of("musicgen_delay").vocabulary(spec_of(ENCODEC), num_codebooks=2)
    coarse = TokenDataset(tmp_path / "tokens", layout="bark_coarse")
    assert len(coarse[1]) == 2 * tokens_of(1, ENCODEC).frames
    with pytest.raises(bc.InvalidInput, match="pass layout="):
        TokenDataset(tmp_path / "tokens").vocabulary  # noqa: B018


def test_one_of_several_streams(tmp_path):
    folder = write(tmp_path / "tokens", [4], channels=2)
    with pytest.raises(bc.InvalidTokens, match=r"2 streams.*stream=0"):
        TokenDataset(folder, layout="snac_interleaved")
    stream = tokens_of(2, channels=2).stream(1)
    assert (
        TokenDataset(folder, layout="snac_interleaved", stream=1)[2].ids.tolist()
        == layout_of("snac_interleaved").pack(stream).tolist()
    )


def test_a_transform_changes_samples(plain):
    dataset = TokenDataset(
        plain, layout="snac_interleaved", columns=["speaker"], transform=lambda own: own.prompted([own.columns["speaker"]])
    )
    assert dataset[5].ids.tolist() == [2, *ids_of(5)]
    with pytest.raises(bc.InvalidInput, match="transform returned NoneType"):
        TokenDataset(plain, layout="snac_interleaved", transform=lambda own: None)[0]


@pytest.mark.parametrize("format", ["parquet", "tar"])
def test_a_folder_in_memory(tmp_path, format):
    local = write(tmp_path / "tokens", COUNTS, format=format)
    memory = fsspec.filesystem("memory")
    memory.put(str(local), "/corpus/tokens", recursive=True)
    try:
        cache = tmp_path / "cache"
        dataset = TokenDataset("memory://corpus/tokens", layout="snac_interleaved", cache=cache)
        assert [sample.ids.tolist() for sample in dataset] == [ids_of(number) for number in range(ROWS)]
        assert len(list(cache.iterdir())) == len(COUNTS)
        memory.rm("/corpus/tokens", recursive=True)
        assert dataset[2].ids.tolist() == ids_of(2)  # from the cache
        with pytest.raises(bc.InvalidInput, match="memory://"):
            TokenDataset("memory://corpus/tokens", layout="snac_interleaved")
    finally:
        memory.store.clear()


@pytest.mark.slow
def test_workers_by_spawn_fetch_what_they_read_and_the_temporary_folder_goes_with_the_dataset(tmp_path):
    local = write(tmp_path / "tokens", COUNTS)
    with zipfile.ZipFile(tmp_path / "tokens.zip", "w") as archive:
        for path in local.iterdir():
            archive.write(path, path.name)
    dataset = TokenDataset(f"zip://::{tmp_path}/tokens.zip", layout="snac_interleaved", columns=["text"])
    cache = dataset.index._shards[0].cache
    loader = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=collate, multiprocessing_context="spawn")
    assert [text for batch in loader for text in batch.columns["text"]] == [f"text {number}" for number in range(ROWS)]
    assert len(list(cache.iterdir())) == len(COUNTS)
    del dataset, loader
    assert not cache.exists()


@pytest.mark.parametrize("address", ["nonsense://folder", "memory://nowhere", "zip://::/no/such.zip"])
def test_addresses_without_a_folder_are_refused(address):
    with pytest.raises(bc.CodecError, match=address.partition("://")[0]):
        TokenDataset(address, layout="snac_interleaved")


def test_folders_without_rows_are_refused(tmp_path):
    with pytest.raises(bc.InvalidInput, match="no shards"):
        TokenDataset(tmp_path)
    with pytest.raises(bc.InvalidInput, match="no row"):
        TokenDataset(write(tmp_path / "empty", [0]))
    (tmp_path / "list.txt").write_text("x")
    with pytest.raises(bc.InvalidInput, match="is not a shard"):
        TokenDataset(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["tone"]}, "no column 'tone'; its columns are .*text"),
        ({"columns": "text"}, "list of names"),
        ({"frames": 6}, "positive multiple of 4"),
        ({"frames": 0}, "positive multiple of 4"),
        ({"num_codebooks": 5}, "num_codebooks is 5; expected 1 to 4"),
        ({"stream": 1}, "stream is 1"),
        ({"crop": "end"}, "crop is 'end'"),
        ({"seed": -1}, "seed is -1"),
        ({"layout": "nonsense"}, "unknown token layout 'nonsense'"),
        ({"layout": 5}, "layout is 5"),
        ({"layout": None}, "Name a layout"),
        ({"codec": "dac:dac_tiny"}, "tokens of snac:snac_tiny.*expected dac:dac_tiny"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_once(folder, options, message):
    with pytest.raises(bc.CodecError, match=message):
        TokenDataset(folder, **{"layout": "snac_interleaved", **options})


@pytest.mark.parametrize("row", [ROWS, -ROWS - 1, "0", None, 0.0])
def test_rows_that_are_not_there_are_refused(plain, row):
    with pytest.raises(bc.InvalidInput, match="expected 0 to 19"):
        TokenDataset(plain, layout="snac_interleaved")[row]


@pytest.mark.parametrize("epoch", [-1, "0", None])
def test_epochs_are_counts(plain, epoch):
    with pytest.raises(bc.InvalidInput, match="epoch is"):
        TokenDataset(plain, layout="snac_interleaved").set_epoch(epoch)


def test_rows_of_another_codec_are_refused_when_they_are_read(tmp_path):
    folders = [write(tmp_path / "a", [2]), write(tmp_path / "b", [2], ENCODEC)]
    dataset = TokenDataset(folders, layout="snac_interleaved")
    assert dataset[1].ids.tolist() == ids_of(1)
    with pytest.raises(bc.InvalidTokens, match=r"b/tokens.*'0' has tokens of encodec.*Keep models"):
        dataset[2]


@pytest.mark.parametrize("format", ["parquet", "tar"])
@pytest.mark.parametrize("left", [0, 3, 0.3, 0.7])
def test_a_truncated_shard_is_refused(tmp_path, format, left):
    path = next(write(tmp_path / "tokens", [9], format=format).iterdir())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if left < 1 else left])
    with pytest.raises(bc.CorruptFile, match="tokens-00000"):
        TokenDataset(tmp_path / "tokens", layout="snac_interleaved")


@pytest.mark.parametrize("format", ["parquet", "tar"])
def test_a_shard_that_has_changed_is_refused_when_it_is_read(tmp_path, format):
    folder = write(tmp_path / "tokens", [9], format=format)
    dataset = TokenDataset(folder, layout="snac_interleaved")
    write(folder, [6], format=format)
    with pytest.raises(bc.CorruptFile, match="tokens-00000"):
        dataset[8]


def test_a_foreign_parquet_file_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(bc.CorruptFile, match="'codes' is missing"):
        TokenDataset(tmp_path)


def test_a_row_group_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    dataset = TokenDataset(write(tmp_path / "tokens", [4]), layout="snac_interleaved")
    monkeypatch.setattr(row_groups, "LARGEST_GROUP", 100)
    with pytest.raises(bc.CorruptFile, match="takes more than 100 bytes"):
        dataset[1]


def test_a_cache_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(bc.InvalidInput, match="cannot be written"):
        TokenDataset("memory://tokens", cache=tmp_path / "file" / "cache")


@given(st.data())
def test_damage_is_a_codec_error_and_nothing_else(plain, tmp_path_factory, data):
    target = tmp_path_factory.mktemp("damaged")
    original = shards.files(plain)[0].read_bytes()
    (target / "x.parquet").write_bytes(data.draw(strategies.damaged(original)))
    try:
        samples = list(TokenDataset(target, layout="snac_interleaved", columns=["text"]).iterable())
    except bc.CodecError:
        return
    assert all(sample.ids.ndim == 1 for sample in samples)


def test_the_codec_is_that_of_the_rows(plain):
    assert TokenDataset(plain, layout="snac_interleaved").codec == tokens_of(0).codec
