"""Datasets of tokens, made by this process or by several."""

from __future__ import annotations

import collections
import dataclasses
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import prefetch, shards
from blazen_codec_core.dataset.executors import processes
from blazen_codec_core.dataset.jobs import tokenize as job
from blazen_codec_core.dataset.rows import Row
from blazen_codec_core.torch_backend.backend import TorchCodecBackend
from tests.helpers.corpora import corpus, sound, tar_of
from tests.helpers.dataset_jobs import Asking, Deadly

HERE = bc.Executor(workers=1)
SMALL = ("snac_tiny", bc.LoadOptions())
SHORT = 0.05
"""Minutes a shard, so that there are several."""


def tokenize(source, out, codec="snac_tiny", **options) -> bc.Summary:
    return bc.tokenize_dataset(source, codec, out, **{"executor": HERE, "shard_minutes": SHORT, **options})


def rows(out) -> dict[str, Row]:
    return {row.id: row for file in shards.files(out) for row in shards.format_of(file).read(file)}


def same(one: bc.CodecTokens, other: bc.CodecTokens) -> None:
    for name in (field.name for field in dataclasses.fields(one)):
        if name == "codes":
            assert all(map(np.array_equal, one.codes, other.codes))
        elif name == "scales":
            assert (one.scales is None) == (other.scales is None)
            assert one.scales is None or np.array_equal(one.scales, other.scales)
        else:
            assert getattr(one, name) == getattr(other, name)


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.files(out)}


@pytest.fixture(scope="module")
def codec() -> bc.DynCodecProvider:
    return bc.load("snac_tiny", device="cpu")


@pytest.fixture(scope="module")
def whole(recordings, tmp_path_factory) -> Path:
    """The recordings, tokenised without an interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    tokenize(recordings, out)
    return out


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("name", ["snac_tiny", "encodec_tiny"])
def test_every_row_is_what_encode_makes_of_its_recording(recordings, tmp_path, kind, name):
    codec = bc.load(name, device="cpu")
    summary = tokenize(recordings, tmp_path / "out", codec, format=kind)
    found = rows(tmp_path / "out")
    assert (summary.rows, summary.failed, summary.shards) == (10, 2, len(shards.files(tmp_path / "out")))
    assert summary.shards > 3
    assert summary.seconds == pytest.approx(sum(row.tokens.seconds for row in found.values()))
    assert len(found) == 10
    for identity, row in found.items():
        with audio.AudioReader(recordings / identity) as reader:
            rate, channels, samples = reader.sample_rate, reader.channels, reader.num_samples
            pcm = audio.resample(np.concatenate(list(reader.blocks()), axis=1), rate, codec.sample_rate)
        source = None if rate == codec.sample_rate else bc.Source(rate, samples)
        same(row.tokens, dataclasses.replace(codec.encode(pcm, codec.sample_rate), source=source))
        assert (row.path, row.start) == (identity, 0.0)
        assert (row.source_sample_rate, row.source_channels, row.source_num_samples) == (rate, channels, samples)
    used = [np.unique(np.concatenate([row.tokens.codes[book].ravel() for row in found.values()])) for book in range(4)]
    assert summary.codebooks[:4] == pytest.approx([len(entries) / codec.spec.codebook_size for entries in used])


def test_columns_say_what_was_asked_for(recordings, tmp_path):
    tokenize(recordings, tmp_path / "out", "encodec_tiny", bandwidth=3.0, mono=True)
    columns = pyarrow.parquet.read_table(shards.files(tmp_path / "out")[-1]).to_pylist()[0]
    assert columns["codec"] == "encodec:encodec_tiny"
    assert columns["weights"].startswith("sha256:")
    assert columns["bandwidth"] == 3.0
    assert json.loads(columns["options"]) == {"dtype": "float32", "engine": "native", "mono": True, "normalize_db": None}
    assert len(columns["codes"]) == 4
    assert columns["duration"] == pytest.approx(columns["source_num_samples"] / columns["source_sample_rate"])


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_this_one(recordings, whole, tmp_path):
    tokenize(recordings, tmp_path / "out", executor=bc.Executor(workers=2))
    assert contents(tmp_path / "out") == contents(whole)


def test_batches_write_the_same_bytes(recordings, whole, tmp_path, monkeypatch):
    """As a device that runs several signals side by side would."""
    monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 3)
    monkeypatch.setattr(job, "LONG", 3.0)
    lengths = []
    real = bc.DynCodecProvider.encode_batch
    monkeypatch.setattr(
        bc.DynCodecProvider, "encode_batch", lambda self, items, *a, **k: lengths.append(len(items)) or real(self, items, *a, **k)
    )
    tokenize(recordings, tmp_path / "out", shard_minutes=1)
    assert sum(lengths) == 8  # all but those of 3.1 s
    tokenize(recordings, tmp_path / "again", shard_minutes=1)
    one, other = rows(tmp_path / "out"), rows(whole)
    assert list(one) == list(other)
    for identity, row in one.items():
        same(row.tokens, other[identity].tokens)


def test_threads_read_in_order_and_no_further_ahead_than_they_are(monkeypatch):
    begun, gone_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if number == 0:
            assert gone_on.wait(30)
        if number == 20:
            raise bc.InvalidInput("of no use")
        return number

    made = prefetch.map_in_threads(work, range(100), 3)
    threading.Timer(0.2, gone_on.set).start()
    assert [next(made) for _ in range(20)] == list(range(20))
    assert max(begun) < 20 + 2 * 3
    with pytest.raises(bc.InvalidInput):
        next(made)
    assert len(begun) < 40


def test_a_batch_that_fails_is_done_one_by_one(recordings, whole, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise bc.InferenceError("out of memory")

    monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 3)
    monkeypatch.setattr(bc.DynCodecProvider, "encode_batch", fails)
    tokenize(recordings, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def test_a_run_goes_on_where_it_was(recordings, whole, tmp_path, monkeypatch):
    out, did = tmp_path / "out", []
    real = job.Tokenizer.__call__

    def dies(self, number):
        if len(did) % 3 == 2:
            did.append(None)
            raise KeyboardInterrupt
        did.append(number)
        return real(self, number)

    monkeypatch.setattr(job.Tokenizer, "__call__", dies)
    runs = 0
    while True:
        runs += 1
        try:
            summary = tokenize(recordings, out)
            break
        except KeyboardInterrupt:
            (out / ".tokens-00000-of-00009.parquet.abcd1234.parquet").write_bytes(b"half")  # as a kill would leave it
            continue
    done = [number for number in did if number is not None]
    assert runs > 2
    assert sorted(done) == list(range(summary.shards))
    assert contents(out) == contents(whole)
    assert (summary.rows, summary.failed) == (10, 2)
    assert not list(out.glob(".tokens*"))
    assert tokenize(recordings, out).new_seconds == 0


def test_a_shard_whose_line_was_lost_is_done_again_to_the_byte(recordings, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    journal = out / ".run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    lost = shards.files(out)[json.loads(lines[-1])["shard"]]
    lost.write_bytes(b"was being replaced")
    tokenize(recordings, out)
    assert contents(out) == contents(whole)
    assert sorted(journal.read_bytes().splitlines()[:-1]) == sorted(line.strip() for line in lines[:-1])


def test_failures_are_noted_with_their_reason_and_can_be_tried_again(recordings, whole, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(recordings, source)
    summary = tokenize(source, out)
    noted = [json.loads(line) for line in summary.failures.read_text().splitlines()]
    assert [row["id"] for row in noted] == ["speaker0/0000.wav", "speaker1/0001.flac"]
    assert all("CorruptFile: " in row["error"] and "cannot be read as audio" in row["error"] for row in noted)
    soundfile.write(source / "speaker0/0000.wav", sound(0.5, 16_000, 1), 16_000)
    assert tokenize(source, out).failed == 2  # nothing is done again unasked
    before = contents(out)
    summary = tokenize(source, out, retry_failed=True)
    assert (summary.rows, summary.failed) == (11, 1)
    assert rows(out)["speaker0/0000.wav"].tokens.seconds == pytest.approx(0.5)
    assert sum(one != other for one, other in zip(before.values(), contents(out).values(), strict=True)) == 1


def test_strict_stops_at_the_first_failure_and_keeps_what_is_done(recordings, tmp_path):
    with pytest.raises(bc.CorruptFile, match=r"speaker.*cannot be read as audio"):
        tokenize(recordings, tmp_path / "out", strict=True)
    assert shards.files(tmp_path / "out")
    assert tokenize(recordings, tmp_path / "out").rows == 10


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"mono": True}, "mono False → True"),
        ({"shard_minutes": 7}, r"shard_minutes 0\.05 → 7"),
        ({"format": "tar"}, "format 'parquet' → 'tar'"),
        ({"codec": bc.load("snac_tiny", weights="random:3")}, "weights 'sha256:.*' → 'random:3'"),
        ({"codec": "dac_tiny"}, "codec 'snac:snac_tiny' → 'dac:dac_tiny'"),
        ({"source": "elsewhere"}, "options: source"),
    ],
)
def test_a_run_that_asks_for_something_else_is_refused(recordings, whole, tmp_path, other, says):
    shutil.copytree(recordings, tmp_path / "elsewhere")
    before = contents(whole)
    source = tmp_path / "elsewhere" if "source" in other else recordings
    with pytest.raises(bc.InvalidInput, match=says):
        tokenize(source, whole, **{key: value for key, value in other.items() if key != "source"})
    assert contents(whole) == before


def test_recordings_that_come_or_go_between_runs_are_not_passed_over(recordings, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(recordings, source)
    tokenize(source, tmp_path / "out")
    shutil.copy(source / "speaker0/0003.wav", source / "speaker0/new.wav")
    with pytest.raises(bc.InvalidInput, match="changed since"):
        tokenize(source, tmp_path / "out")


def test_a_run_does_not_take_its_own_shards_for_recordings(recordings, tmp_path):
    inside = recordings / "tokens"
    with pytest.raises(bc.InvalidInput, match="Choose another folder, or Parquet"):
        bc.tokenize_dataset(recordings, "snac_tiny", inside, format="tar")
    assert not inside.exists()
    (tmp_path / "link").symlink_to(recordings)
    with pytest.raises(bc.InvalidInput, match="another folder"):
        bc.tokenize_dataset(tmp_path / "link", "snac_tiny", recordings, format="tar")


def test_nothing_stays_behind_where_there_is_nothing_to_do(tmp_path):
    (tmp_path / "list.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "empty").mkdir()
    for source, says in (("list.jsonl", "has no path column"), ("empty", "no audio"), ("missing", "is not a file or a folder")):
        with pytest.raises(bc.InvalidInput, match=says):
            tokenize(tmp_path / source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "csv"}, "parquet or tar"),
        ({"shard_minutes": 0}, "positive"),
        ({"bandwidth": 99}, "bandwidth is 99; .* supports 2.75 kbps"),
        ({"normalize_db": 5}, "LUFS"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_read(tmp_path, options, says):
    with pytest.raises(bc.InvalidInput, match=says):
        tokenize(tmp_path / "missing", tmp_path / "out", **options)


def test_parts_and_members_of_tars_become_the_rows_of_those(tmp_path, codec):
    (tmp_path / "in").mkdir()
    pcm = voice(3.0, 24_000)
    audio.write(tmp_path / "in" / "a.flac", pcm, 24_000)
    (tmp_path / "list.csv").write_text("path,start,end\nin/a.flac,0.5,1.25\nin/a.flac,2,\n")
    tokenize(tmp_path / "list.csv", tmp_path / "parts")
    stored = audio.read(tmp_path / "in" / "a.flac")[0]
    found = rows(tmp_path / "parts")
    for identity, start, stop in (("in/a.flac#0.5-1.25", 12_000, 30_000), ("in/a.flac#2-", 48_000, 72_000)):
        same(found[identity].tokens, codec.encode(stored[:, start:stop], 24_000))
        assert found[identity].start == start / 24_000
    tar_of(tmp_path / "in", tmp_path / "in.tar")
    tokenize(tmp_path / "in.tar", tmp_path / "tarred")
    (row,) = rows(tmp_path / "tarred").values()
    assert (row.id, row.path) == ("a.flac", "in.tar:a.flac")
    same(row.tokens, codec.encode(stored, 24_000))


def test_loudness_is_brought_to_what_was_asked_for_recording_by_recording(tmp_path, codec):
    for gain in (0.02, 0.5):
        audio.write(tmp_path / f"{gain}.wav", gain * voice(2.0, 24_000), 24_000)
    (tmp_path / "in").mkdir()
    for path in tmp_path.glob("*.wav"):
        path.rename(tmp_path / "in" / path.name)
    tokenize(tmp_path / "in", tmp_path / "out", normalize_db=-20)
    for identity, row in rows(tmp_path / "out").items():
        pcm = audio.read(tmp_path / "in" / identity)[0]
        same(row.tokens, codec.encode(pcm, 24_000, normalize_db=-20))


def test_weights_that_are_others_elsewhere_end_the_run(recordings, tmp_path, monkeypatch):
    """Such as of another machine of a cluster."""
    from blazen_codec_core.dataset import runner

    monkeypatch.setattr(runner, "_weights", lambda codec: "sha256:of another file")
    with pytest.raises(bc.WeightsUnavailable, match="the run uses sha256:of another file"):
        tokenize(recordings, tmp_path / "out")


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_with_a_reason(recordings, tmp_path):
    with pytest.raises(bc.InferenceError, match="a worker process died"):
        list(processes.run(Deadly(*SMALL), range(4), ["cpu", "cpu"], 1))


@pytest.mark.slow
def test_workers_have_the_threads_and_the_places_that_they_are_given(tmp_path):
    answers = list(processes.run(Asking(*SMALL, tmp_path, processes=2), range(8), ["cpu", "cpu:0"], 1))
    assert {threads for _, threads, _ in answers} == {1}
    assert collections.Counter(device for *_, device in set(answers)) == {"cpu": 1, "cpu:0": 1}


def test_pieces_are_read_ahead_but_not_far():
    made = []

    def values():
        for number in range(20):
            made.append(number)
            yield number

    ready = prefetch.prefetch(values(), 3)
    assert next(ready) == 0
    ready.close()
    assert len(made) <= 6
    assert list(prefetch.prefetch(iter(range(20)), 3)) == list(range(20))
    with pytest.raises(KeyError):
        list(prefetch.prefetch(({}[number] for number in [1]), 3))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_file_or_their_number(tmp_path, memory_of_tokenizing):
    few = memory_of_tokenizing(corpus(tmp_path / "few", 60, alike=False))
    long = tmp_path / "long"
    long.mkdir()
    soundfile.write(long / "a.wav", np.tile(voice(10.0, 8000), 60), 8000)
    assert memory_of_tokenizing(long) < few + 32
    assert memory_of_tokenizing(corpus(tmp_path / "many", 300, alike=False)) < few + 64  # 200 and more, kept by the library
