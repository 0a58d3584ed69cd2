"""Names are mapped into a folder once, and nothing of anybody else's is written over or removed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import destination, run_state, shards
from blazen_codec_core.dataset.destination import Destination
from blazen_codec_core.dataset.rows import Row

HERE = bc.Executor(workers=1)


@pytest.fixture(scope="module")
def row() -> Row:
    tokens = bc.load("snac_tiny", device="cpu").encode(voice(0.1, 24_000), 24_000)
    return Row("a", "a.wav", tokens, 0.0, 24_000, 2400, 1)


@pytest.fixture
def dataset(tmp_path, row):
    """A dataset of a row for each id."""

    def make(*ids: str, number: int = 0) -> Path:
        folder = tmp_path / "tokens"
        folder.mkdir(exist_ok=True)
        path = folder / f"{number}.parquet"
        shards.format_of(path).write(path, bc.load("snac_tiny").spec, [dataclasses.replace(row, id=name) for name in ids])
        return folder

    return make


def detokenize(source: Path, out: Path, **options) -> bc.Summary:
    return bc.detokenize_dataset(source, out, executor=HERE, **options)


def test_nothing_outside_is_removed_for_an_id_that_is_refused(dataset, tmp_path):
    outside = tmp_path / ".x.wav.abcd1234.wav"  # as a file half-written is called, beside OUT
    outside.write_bytes(b"mine")
    summary = detokenize(dataset("../x", "fine", "/etc/x"), tmp_path / "out")
    assert (summary.rows, summary.failed) == (1, 2)
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (".run/x", ".run is the folder"),
        (".RUN/x", ".run is the folder"),
        (".run./x", ".run is the folder"),
        (".run/journal.jsonl", ".run is the folder"),
        ("a/.b.wav.abcd1234", "reserved for temporary files"),
        ("C:\\x", "an absolute path"),
        ("\\\\server\\share\\x", "an absolute path"),
        ("a\\..\\..\\x", "leaves the output folder"),
        ("nul\0", "a NUL"),
        ("n" * 256, "a path component has"),
        ("n" * 242, "a path component has"),
        ("n" * 256 + "/a", "a path component has"),
        ("ü" * 150, "a path component has"),
        ("m/" * 1500 + "a", "1501 path components"),
        ("m/" * 2500 + "a", "2501 path components"),
    ],
)
def test_an_id_that_is_no_name_of_a_file_costs_its_row(dataset, tmp_path, name, says):
    summary = detokenize(dataset(name, "fine", "fine too/a"), tmp_path / "out")
    assert (summary.rows, summary.failed) == (2, 1)
    assert any(part in summary.failures.read_text() for part in says.split("|"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".run", "fine.wav", "fine too"}
    assert detokenize(tmp_path / "tokens", tmp_path / "out").new_seconds == 0


@pytest.mark.parametrize(("name", "file"), [(".tokens-a", ".tokens-a.wav"), (".hidden", ".hidden.wav"), ("C.x:y", "C.x:y.wav")])
def test_a_name_that_looks_like_ours_stays_when_a_run_is_gone_on_with(dataset, tmp_path, name, file):
    out, source = tmp_path / "out", dataset(name)
    for _ in range(2):
        summary = detokenize(source, out)
        assert (summary.rows, summary.failed) == (1, 0)
        assert (out / file).is_file()


def test_names_of_windows_are_told_from_others(tmp_path):
    for name in ("con", "AUX.txt", "a/nul", "com1", "a./b", "a /b", "a?", "a|b"):
        with pytest.raises(bc.InvalidInput, match="Windows does not allow that name"):
            Destination(tmp_path, is_windows=True).audio(name, ".wav")
        assert Destination(tmp_path, is_windows=False).audio(name, ".wav")
    assert Destination(tmp_path, is_windows=True).audio("console/a.b", ".wav")


def test_half_a_character_is_no_name(tmp_path):
    with pytest.raises(bc.InvalidInput, match="an unpaired surrogate"):
        Destination(tmp_path).audio("\ud800", ".wav")


@pytest.mark.parametrize(("one", "other"), [("a//b", "a/b"), ("a/./b", "a/b"), ("a", "a.wav"), ("a.WAV", "a.WAV")])
def test_of_ids_that_are_one_file_the_first_has_it(dataset, tmp_path, one, other):
    dataset(one, "fine")
    summary = detokenize(dataset(other, number=1), tmp_path / "out")
    assert (summary.rows, summary.failed) == (2, 1)
    failure = json.loads(summary.failures.read_text())
    assert failure["id"] == other
    assert f"the ids {one!r} (an earlier row) and {other!r} map to the same file" in failure["error"]
    again = detokenize(tmp_path / "tokens", tmp_path / "out")
    assert (again.rows, again.failed, again.new_seconds) == (2, 1, 0)


def test_names_differ_as_the_file_system_has_them(dataset, tmp_path, monkeypatch):
    """Pretends to be one of a Mac."""
    dataset("Ä", "a\u0308")
    assert detokenize(tmp_path / "tokens", tmp_path / "linux").rows == 2
    from blazen_codec_core.dataset import runner

    monkeypatch.setattr(runner, "is_folding", lambda folder: (True, True))
    assert detokenize(tmp_path / "tokens", tmp_path / "mac").failed == 1
    (tmp_path / "probe").mkdir()
    assert destination.is_folding(tmp_path / "probe") in {(False, False), (True, True), (True, False)}
    assert not list((tmp_path / "probe").iterdir())


def test_a_link_in_the_folder_is_not_written_through(dataset, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.wav").write_bytes(b"mine")
    detokenize(dataset("fine", "sub/x", "link"), out)
    shutil.rmtree(out / "sub")
    (out / "sub").symlink_to(elsewhere)
    (out / "link.wav").unlink()
    (out / "link.wav").symlink_to(elsewhere / "x.wav")
    summary = detokenize(tmp_path / "tokens", out)
    assert (summary.rows, summary.failed) == (1, 2)
    assert summary.failures.read_text().count("is a symbolic link") == 2
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"x.wav": b"mine"}


def test_a_file_where_a_folder_is_needed_costs_a_row(dataset, tmp_path):
    summary = detokenize(dataset("a.wav", "a.wav/b"), tmp_path / "out")
    assert (summary.rows, summary.failed) == (1, 1)


def test_a_folder_may_itself_be_a_link(dataset, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert detokenize(dataset("a"), tmp_path / "out").rows == 1
    assert (tmp_path / "real/a.wav").is_file()


def test_a_folder_with_an_empty_mark_is_of_somebody_else(recordings, tmp_path):
    own = tmp_path / "out/.run"
    own.mkdir(parents=True)
    (own / "made-by").touch()
    (own / "plan.json").write_text("mine")
    with pytest.raises(bc.InvalidInput, match=r"\.run was not made by blazen-codec\. Move it away"):
        bc.tokenize_dataset(recordings, "snac_tiny", tmp_path / "out", executor=HERE)
    assert {path.name: path.read_text() for path in own.iterdir()} == {"made-by": "", "plan.json": "mine"}


def test_a_mark_that_was_not_written_yet_is_no_hindrance(tmp_path):
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run/made-by").touch()
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({})
        assert (kept.folder / "made-by").read_bytes() == run_state.MADE_BY


@pytest.mark.slow
@pytest.mark.parametrize("name", ["journal.jsonl", "plan.json", "lock", "made-by", "dataset.json", "items.jsonl"])
def test_books_that_are_pipes_are_refused(dataset, recordings, tmp_path, name):
    for folder, go_on in (
        ("audio", lambda out: detokenize(dataset("a"), out)),
        ("shards", lambda out: bc.tokenize_dataset(recordings, "snac_tiny", out, executor=HERE)),
    ):
        out = tmp_path / folder
        go_on(out)
        (out / ".run" / name).unlink(missing_ok=True)
        os.mkfifo(out / ".run" / name)
        with pytest.raises(bc.InvalidInput, match=rf"{name} is not a regular file. Move it away"):
            go_on(out)
        assert (out / ".run" / name).is_fifo()


def test_files_that_are_called_nearly_as_ours_stay(dataset, tmp_path):
    out, source = tmp_path / "out", dataset("r0")
    detokenize(source, out)
    names = [
        ".r0.wav.my_notes.wav",
        ".r0.wav.ABCD1234.wav",
        ".r0.wav.abcd1234.flac",
        ".tokens-00000-of-00005.parquet.abcdefgh.parquet",
    ]
    for name in (*names, ".r0.wav.abcd1234.wav"):
        (out / name).write_bytes(b"mine")
    (out / ".run/journal.jsonl").unlink()
    detokenize(source, out)
    assert {path.name for path in out.iterdir()} == {".run", "r0.wav", *names}


@pytest.mark.parametrize("name", ["journal.jsonl", "plan.json", "lock", ".notes", "dataset.json"])
def test_a_folder_of_somebody_else_that_is_called_as_ours_is_left_alone(recordings, tmp_path, name):
    own = tmp_path / "out/.run" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"mine": 1}\n')
    with pytest.raises(bc.InvalidInput, match=r"\.run was not made by blazen-codec\. Move it away"):
        bc.tokenize_dataset(recordings, "snac_tiny", tmp_path / "out", executor=HERE)
    assert own.read_text() == '{"mine": 1}\n'
    assert list(own.parent.iterdir()) == [own]


def test_books_that_are_links_are_refused(recordings, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / ".run").symlink_to(elsewhere)
    with pytest.raises(bc.InvalidInput, match="is a link or a file"), run_state.open_run(out):
        pass
    assert not list(elsewhere.iterdir())
    (out / ".run").unlink()
    with run_state.open_run(out) as kept:
        kept.note_asked({})
    (elsewhere / "mine").write_text("mine")
    (out / ".run/journal.jsonl").symlink_to(elsewhere / "mine")
    with pytest.raises(bc.InvalidInput, match=r"journal\.jsonl is a symbolic link"), run_state.open_run(out):
        pass
    assert (elsewhere / "mine").read_text() == "mine"


def test_only_what_is_ours_is_removed_where_nothing_came_of_a_run(tmp_path):
    (tmp_path / "out").mkdir()
    with run_state.open_run(tmp_path / "out") as kept:
        (kept.folder / "notes").write_text("mine")
        (kept.folder / "plan.json").write_text("ours")
    assert [path.name for path in (tmp_path / "out/.run").iterdir()] == ["notes"]


def test_only_shards_that_are_half_written_are_tidied_away(tmp_path):
    out = tmp_path / "out"
    with run_state.open_run(out) as kept:
        kept.note_asked({})
        ours = [out / ".tokens-00001-of-00004.parquet.abcd1234.parquet", kept.folder / ".plan.json.abcd1234.json"]
        others = [out / ".tokens-a.wav", out / ".tokens-00001-of-00004.txt.abcd1234.txt", kept.folder / ".nfs00001234"]
        for path in (*ours, *others):
            path.write_bytes(b"x")
        (out / ".tokens-00002-of-00004.parquet.abcd1234.parquet").mkdir()
        kept.tidy()
        assert not any(path.exists() for path in ours)
        assert all(path.exists() for path in others)


def test_a_shard_is_not_written_through_a_link(recordings, tmp_path):
    out = tmp_path / "out"
    bc.tokenize_dataset(recordings, "snac_tiny", out, executor=HERE)
    shard = shards.files(out)[0]
    shard.rename(tmp_path / "moved.parquet")
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    shard.symlink_to(tmp_path / "mine.parquet")
    with pytest.raises(bc.InvalidInput, match="is a symbolic link"):
        bc.tokenize_dataset(recordings, "snac_tiny", out, executor=HERE)
    assert (tmp_path / "mine.parquet").read_bytes() == b"mine"


def test_a_pipe_in_the_place_of_a_shard_is_refused(recordings, tmp_path):
    out = tmp_path / "out"
    bc.tokenize_dataset(recordings, "snac_tiny", out, executor=HERE)
    shard = shards.files(out)[0]
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(bc.InvalidInput, match="not a regular file"):
        bc.tokenize_dataset(recordings, "snac_tiny", out, executor=HERE)
    assert shard.is_fifo()
