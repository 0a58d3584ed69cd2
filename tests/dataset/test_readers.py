"""Datasets as other packages read them."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards

pytestmark = pytest.mark.slow  # for what it installs
MODELS = ("snac_tiny", "encodec_48khz")
"""Codebooks at several rates; streams with scales."""


@pytest.fixture(scope="module", params=MODELS)
def dataset(recordings, tmp_path_factory, request):
    """Its folder, and what `bc.read_tokens` makes of it."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    codec = bc.load(request.param, weights="random:0", device="cpu")
    bc.tokenize_dataset(recordings, codec, out, shard_minutes=0.05, executor=bc.Executor(workers=1))
    return out, dict(bc.read_tokens(out))


def check(rows, expected) -> None:
    """That rows, mappings of columns, hold the tokens that they should."""
    found = {row["id"]: bc.tokens_from_row(row) for row in rows}
    assert found.keys() == expected.keys()
    for identity, tokens in found.items():
        for one, other in zip(tokens.codes, expected[identity].codes, strict=True):
            assert np.array_equal(one, other)
        if (scales := expected[identity].scales) is not None:
            assert np.array_equal(tokens.scales, scales)
        assert (tokens.num_samples, tokens.source) == (expected[identity].num_samples, expected[identity].source)


def test_pandas(dataset):
    pandas = pytest.importorskip("pandas")
    out, expected = dataset
    frame = pandas.concat([pandas.read_parquet(file) for file in shards.files(out)])
    check(frame.to_dict("records"), expected)
    assert frame["codes"].iloc[0][0].dtype == np.uint16
    assert frame["duration"].sum() == pytest.approx(sum(tokens.seconds for tokens in expected.values()), rel=1e-3)


def test_polars(dataset):
    polars = pytest.importorskip("polars")
    out, expected = dataset
    check(polars.read_parquet(out / "*.parquet").iter_rows(named=True), expected)


def test_duckdb(dataset):
    duckdb = pytest.importorskip("duckdb")
    out, expected = dataset
    query = duckdb.sql(f"select * from '{out}/*.parquet'")
    check([dict(zip(query.columns, row, strict=True)) for row in query.fetchall()], expected)
    (longest,) = duckdb.sql(f"select max(duration) from '{out}/*.parquet'").fetchall()[0]
    assert longest == pytest.approx(3.1)


@pytest.mark.filterwarnings("ignore")  # of its own and its dependencies
def test_datasets(dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    out, expected = dataset
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path))  # the folder as it is
    check(loaded, expected)
    streamed = datasets.load_dataset("parquet", data_files=f"{out}/*.parquet", split="train", streaming=True)
    check(streamed, expected)


@pytest.mark.filterwarnings("ignore")
def test_webdataset_style_tars(recordings, tmp_path):
    """Through `datasets`, which reads them as WebDataset does."""
    datasets = pytest.importorskip("datasets")

    bc.tokenize_dataset(recordings, "snac_tiny", tmp_path / "out", format="tar", executor=bc.Executor(workers=1))
    expected = dict(bc.read_tokens(tmp_path / "out"))
    files = [str(path) for path in shards.files(tmp_path / "out")]
    for sample in datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True):
        tokens = bc.CodecTokens.from_bytes(sample["tokens"])
        assert np.array_equal(tokens.codes[0], expected[sample["json"]["id"]].codes[0])
