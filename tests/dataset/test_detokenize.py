"""Datasets of tokens back to audio."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.dataset import destination, shards
from blazen_codec_core.dataset.jobs import detokenize
from blazen_codec_core.files import replaced_by
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

HERE = bc.Executor(workers=1)


@pytest.fixture(scope="module", params=["parquet", "tar"])
def dataset(recordings, tmp_path_factory, request):
    out = tmp_path_factory.mktemp(request.param) / "out"
    bc.tokenize_dataset(recordings, "snac_tiny", out, format=request.param, shard_minutes=0.05, executor=HERE)
    return out


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if ".run" not in path.parts}


def test_every_file_is_what_decode_makes_of_its_row_at_the_rate_and_length_of_the_original(recordings, dataset, tmp_path):
    summary = bc.detokenize_dataset(dataset, tmp_path / "out", executor=HERE)
    codec = bc.load("snac_tiny", device="cpu")
    rows = dict(bc.read_tokens(dataset))
    assert (summary.rows, summary.failed, summary.shards) == (10, 0, len(shards.files(dataset)))
    assert files(tmp_path / "out") == {name if name.endswith(".wav") else f"{name}.wav" for name in rows}
    for identity, tokens in rows.items():
        made, rate = audio.read(tmp_path / "out" / destination.file_name(identity, ".wav"))
        with audio.AudioReader(recordings / identity) as original:
            assert (rate, made.shape) == (original.sample_rate, (original.channels, original.num_samples))
        if tokens.source is None:
            assert np.allclose(made, np.clip(codec.decode(tokens), -1, 1), atol=1e-4)  # of 16 bits


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["parquet"], indirect=True)
def test_batches_and_processes_write_the_same(dataset, tmp_path, monkeypatch):
    bc.detokenize_dataset(dataset, tmp_path / "one", suffix=".flac", executor=HERE)
    bc.detokenize_dataset(dataset, tmp_path / "two", suffix=".flac", executor=bc.Executor(workers=2))
    monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 4)
    bc.detokenize_dataset(dataset, tmp_path / "together", suffix=".flac", executor=HERE)
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "together")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        one, together = (audio.read(tmp_path / folder / name)[0] for folder in ("one", "together"))
        assert np.allclose(one, together, atol=1e-4)


def test_it_goes_on_where_it_was(dataset, tmp_path, monkeypatch):
    did = []
    real = detokenize.Detokenizer.__call__

    def dies(self, number):
        if len(did) == 2:
            raise KeyboardInterrupt
        did.append(number)
        return real(self, number)

    with monkeypatch.context() as rigged:
        rigged.setattr(detokenize.Detokenizer, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            bc.detokenize_dataset(dataset, tmp_path / "out", executor=HERE)
    summary = bc.detokenize_dataset(dataset, tmp_path / "out", executor=HERE)
    assert summary.rows == 10 == len(files(tmp_path / "out"))
    assert summary.new_seconds < summary.seconds
    with pytest.raises(bc.InvalidInput, match=r"suffix '\.wav' → '\.flac'"):
        bc.detokenize_dataset(dataset, tmp_path / "out", suffix=".flac", executor=HERE)


def test_what_a_kill_left_half_written_goes_away_and_nothing_else(dataset, tmp_path):
    out = tmp_path / "out"
    bc.detokenize_dataset(dataset, out, executor=HERE)
    (out / ".run" / "journal.jsonl").unlink()  # as if nothing had been noted yet
    before = files(out)
    whole = next(path for path in out.rglob("*.wav"))
    half, other = whole.with_name(f".{whole.name}.abcd1234.wav"), whole.with_name(".notes.wav")
    for path in (half, other):
        path.write_bytes(b"RIFF")
    assert replaced_by(half) == whole
    bc.detokenize_dataset(dataset, out, executor=HERE)
    assert not half.exists()
    assert other.exists()
    assert files(out) == before | {other.relative_to(out).as_posix()}


def test_random_weights_are_those_that_made_the_tokens(recordings, tmp_path):
    codec = bc.load("snac_tiny", weights="random:3", device="cpu")
    bc.tokenize_dataset(recordings, codec, tmp_path / "tokens", executor=HERE)
    bc.detokenize_dataset(tmp_path / "tokens", tmp_path / "out", executor=HERE)
    (identity,) = (name for name, tokens in bc.read_tokens(tmp_path / "tokens") if name.endswith("0002.ogg"))
    tokens = dict(bc.read_tokens(tmp_path / "tokens"))[identity]
    assert np.allclose(audio.read(tmp_path / "out" / f"{identity}.wav")[0], np.clip(codec.decode(tokens), -1, 1), atol=1e-4)


@pytest.fixture
def renamed(dataset, tmp_path):
    """A dataset of two rows with other ids."""

    def make(*ids: str):
        folder = tmp_path / "renamed"
        folder.mkdir()
        file = shards.files(dataset)[0]
        kind = shards.format_of(file)
        row = next(row for file in shards.files(dataset) for row in kind.read(file))
        spec = bc.load("snac_tiny").spec
        kind.write(folder / file.name, spec, [dataclasses.replace(row, id=name) for name in ids])
        return folder

    return make


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "", "nul\0"])
def test_an_id_that_leads_elsewhere_is_a_failure(renamed, tmp_path, name):
    summary = bc.detokenize_dataset(renamed(name, "fine"), tmp_path / "out", executor=HERE)
    assert (summary.rows, summary.failed) == (1, 1)
    assert "is not a valid file name" in summary.failures.read_text()
    assert files(tmp_path / "out") == {"fine.wav"}
    assert not (tmp_path / "outside.wav").exists()
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(bc.InvalidInput, match="is not a valid file name"):
        bc.detokenize_dataset(tmp_path / "renamed", tmp_path / "out", executor=HERE, strict=True)


def test_ids_that_would_be_one_file_cost_the_second_its_row(renamed, tmp_path):
    folder, out = renamed("a", "a.wav", "b", "b", "../x", "c"), tmp_path / "out"
    summary = bc.detokenize_dataset(folder, out, executor=HERE)
    assert (summary.rows, summary.failed) == (3, 3)
    assert files(out) == {"a.wav", "b.wav", "c.wav"}
    said = summary.failures.read_text()
    assert "the ids 'a' (an earlier row) and 'a.wav' map to the same file" in said
    again = bc.detokenize_dataset(folder, out, executor=HERE)
    assert (again.rows, again.failed, again.new_seconds, again.failures.read_text()) == (3, 3, 0, said)
    assert bc.detokenize_dataset(folder, out, executor=HERE, retry_failed=True).failures.read_text() == said
    with pytest.raises(bc.InvalidInput, match="map to the same file"):
        bc.detokenize_dataset(folder, tmp_path / "strict", executor=HERE, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_a_full_disk_ends_the_run_and_is_gone_on_with(renamed, tmp_path, monkeypatch, batched):
    if batched:
        monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 4)
    folder, out, real, full = renamed("a", "b", "c"), tmp_path / "out", os.replace, True

    def replace(one, other):
        if full and os.fspath(other).endswith("b.wav"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(one, other)

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(2):
        with pytest.raises(bc.DiskTrouble, match=r"b\.wav cannot be written: No space left"):
            bc.detokenize_dataset(folder, out, executor=HERE)
        assert not (out / ".run/journal.jsonl").exists()
    full = False
    summary = bc.detokenize_dataset(folder, out, executor=HERE)
    assert (summary.rows, summary.failed) == (3, 0)
    assert files(out) == {"a.wav", "b.wav", "c.wav"}


def test_a_file_too_large_for_the_disk_ends_the_command(run, renamed, tmp_path):
    resource = pytest.importorskip("resource")
    command = ("detokenize", renamed("a", "b"), "-o", tmp_path / "out", "--workers", "1", "--device", "cpu")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        code, _, err = run(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, "a.wav cannot be written: File too large" in err) == (2, True)
    assert run(*command)[0] == 0
    assert files(tmp_path / "out") == {"a.wav", "b.wav"}


def test_a_folder_that_cannot_be_made_for_want_of_room_ends_the_run(renamed, tmp_path, monkeypatch):
    folder, real = renamed("a/b", "c"), Path.mkdir

    def mkdir(path, *args, **options):
        if path.name == "a":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(bc.DiskTrouble, match="cannot hold 'a/b': Disk quota exceeded"):
        bc.detokenize_dataset(folder, tmp_path / "out", executor=HERE)


@pytest.mark.parametrize("name", ["zz.parquet", "zz.tar"])
def test_a_pipe_among_shards_is_refused(renamed, tmp_path, name):
    folder = renamed("a")
    os.mkfifo(folder / name)
    with pytest.raises(bc.CodecError, match=rf"{name}.* is (not a|no regular) file"):
        bc.detokenize_dataset(folder, tmp_path / "out", executor=HERE)


def test_what_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("no parquet")
    (tmp_path / "a.tar").write_text("no tar")
    (tmp_path / "b.csv").write_text("id")
    with pytest.raises(bc.InvalidInput, match="cannot be written"):
        bc.detokenize_dataset(tmp_path / "a.parquet", tmp_path / "out", suffix=".doc")
    for name in ("a.parquet", "a.tar"):
        with pytest.raises(bc.CorruptFile, match="cannot be read"):
            bc.detokenize_dataset(tmp_path / name, tmp_path / "out", executor=HERE)
    with pytest.raises(bc.InvalidInput, match="is not a shard"):
        bc.detokenize_dataset(tmp_path / "b.csv", tmp_path / "out", executor=HERE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(bc.InvalidInput, match="has no shards"):
        bc.detokenize_dataset(tmp_path / "empty", tmp_path / "out", executor=HERE)


@pytest.mark.parametrize(
    "kind", ["ArrowInvalid", "ArrowIndexError", "ArrowKeyError", "ArrowNotImplementedError", "ArrowTypeError"]
)
def test_whatever_arrow_cannot_read_is_damaged(tmp_path, monkeypatch, kind):
    """Such as a footer that claims integers of 128 bits."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")

    def unreadable(path, **_):
        raise getattr(pyarrow, kind)("not like this")

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", unreadable)
    with pytest.raises(bc.CorruptFile, match=r"a\.parquet cannot be read: .*not like this"):
        list(bc.read_tokens(tmp_path / "a.parquet"))
