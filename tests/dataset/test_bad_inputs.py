"""One bad thing costs one row, and what is passed over is counted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.audio import AudioReader
from blazen_codec_core.dataset import shards
from tests.helpers import damaged_files
from tests.helpers.corpora import sound

HERE = bc.Executor(workers=1)
ONE = ["--workers", "1", "--device", "cpu"]


def audio(path: Path | None = None, kind: str = "FLAC") -> bytes:
    """A recording of a tenth of a second, which is written where it is told."""
    content = io.BytesIO()
    soundfile.write(content, sound(0.1, 24_000, 1), 24_000, format=kind, subtype="PCM_16")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
    return content.getvalue()


def tar(path: Path, *names: str, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(audio())
            file.addfile(member, io.BytesIO(audio()))
    return path


def tokenize(source, out, **options) -> tuple[bc.Summary, list[dict]]:
    """The summary, and the lines of failures."""
    summary = bc.tokenize_dataset(source, "snac_tiny", out, executor=HERE, **options)
    lines = summary.failures.read_text().splitlines() if summary.failures else []
    return summary, [json.loads(line) for line in lines]


def ids(out: Path) -> list[str]:
    return [row.id for file in shards.files(out) for row in shards.format_of(file).read(file)]


@pytest.mark.parametrize("verify", ["times", "content"])
def test_pipes_and_devices_cost_a_row_and_are_not_waited_for(tmp_path, verify):
    folder = tmp_path / "in"
    audio(folder / "a.flac")
    for name in ("b.flac", "c.tar", "d"):
        os.mkfifo(folder / name)
    summary, failures = tokenize(folder, tmp_path / "out", verify=verify)
    assert (summary.rows, [failure["id"] for failure in failures]) == (1, ["b.flac", "c.tar"])
    assert tokenize(folder, tmp_path / "out", verify=verify)[0].new_seconds == 0
    paths = ["in/a.flac", "in/b.flac", "/dev/zero"]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"path": path, "id": path}) for path in paths))
    summary, failures = tokenize(tmp_path / "list.jsonl", tmp_path / "listed", verify=verify)
    assert (summary.rows, [failure["id"] for failure in failures]) == (1, paths[1:])


@pytest.mark.parametrize("name", ["all.tar", "a.flac"])
def test_a_pipe_where_a_recording_was_is_another(tmp_path, name):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    tar(path, "a.flac") if name == "all.tar" else audio(path)
    tokenize(tmp_path / "in", tmp_path / "out", verify="content")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(bc.InvalidInput, match=r"changed since"):
        tokenize(tmp_path / "in", tmp_path / "out", verify="content")


@pytest.fixture
def without_av(monkeypatch):
    """As if the extra `av` were not installed."""
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize(
    "error", [ValueError("of no use"), TypeError("?"), MemoryError(), OSError(5, "gone"), bc.EngineNotAvailable("needs av")]
)
def test_whatever_reading_a_recording_raises_costs_that_recording(tmp_path, monkeypatch, error):
    for name in ("a.flac", "b.flac", "c.flac"):
        audio(tmp_path / "in" / name)
    real = AudioReader.blocks

    def blocks(self, *arguments):
        if self.path.name == "b.flac":
            raise error
        return real(self, *arguments)

    monkeypatch.setattr(AudioReader, "blocks", blocks)
    summary, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert (summary.rows, summary.failed) == (2, 1)
    assert failures[0]["id"] == "b.flac"
    assert failures[0]["error"].startswith(type(error).__name__)
    with pytest.raises(bc.CodecError, match=r"b\.flac: "):
        tokenize(tmp_path / "in", tmp_path / "strict", strict=True)


def test_what_the_codec_raises_costs_a_recording_unless_it_would_come_back_with_every_one(tmp_path, monkeypatch):
    for name in ("a.flac", "b.flac"):
        audio(tmp_path / "in" / name)
    monkeypatch.setattr(bc.DynCodecProvider, "short_samples", 0)
    real, calls = bc.DynCodecProvider.encoder_session, []

    def fails_first(error):
        def session(self, *arguments, **options):
            calls.append(None)
            if len(calls) == 1:
                raise error
            return real(self, *arguments, **options)

        calls.clear()
        return session

    monkeypatch.setattr(bc.DynCodecProvider, "encoder_session", fails_first(KeyError("x")))
    summary, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert (summary.rows, failures[0]["error"]) == (1, "KeyError: 'x'")
    monkeypatch.setattr(bc.DynCodecProvider, "encoder_session", fails_first(bc.DeviceUnavailable("gone")))
    with pytest.raises(bc.DeviceUnavailable):
        tokenize(tmp_path / "in", tmp_path / "other")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("listed", [False, True])
def test_names_that_are_not_utf8_are_tokenised(tmp_path, listed):
    audio(tmp_path / "good.flac")
    os.rename(tmp_path / "good.flac", os.fsencode(tmp_path) + b"/caf\xe9.flac")
    source = tmp_path
    if listed:
        source = tmp_path / "list.csv"
        source.write_bytes(b"path,text\ncaf\xe9.flac,\xe9\n")
    columns = ["text"] if listed else []
    summary, _ = tokenize(source, tmp_path / "out", columns=columns)
    assert (summary.rows, ids(tmp_path / "out")) == (1, ["caf\\xe9.flac"])


def test_of_recordings_with_the_same_id_the_first_stays(tmp_path):
    audio(tmp_path / "a.flac")
    audio(tmp_path / "b.flac")
    rows = [
        {"path": "a.flac", "id": "x"},
        {"path": "b.flac", "id": "y"},
        {"path": "b.flac", "id": "x"},
        {"path": "a.flac", "id": "x"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary, failures = tokenize(tmp_path / "list.jsonl", tmp_path / "out")
    assert ids(tmp_path / "out") == ["x", "y"]
    assert [(row["id"], row["path"]) for row in failures] == [("x", "b.flac"), ("x", "a.flac")]
    assert "an earlier recording has the id 'x'" in failures[0]["error"]
    assert summary.failed == 2


def test_a_list_goes_on_after_bad_rows(tmp_path, run):
    audio(tmp_path / "a.flac")
    (tmp_path / "list.csv").write_text("path,start,end\na.flac,,\na.flac,0.09,nan\na.flac,5,6\nmissing.flac,,\na.flac,0.05,\n")
    summary, failures = tokenize(tmp_path / "list.csv", tmp_path / "out")
    assert (summary.rows, summary.failed) == (2, 3)
    said = ("list.csv, row 2: end is 'nan'; expected a number of seconds", "has no audio from 5 to 6 s", "is not a file")
    assert all(words in row["error"] for words, row in zip(said, failures, strict=True))
    with pytest.raises(bc.InvalidInput, match="row 2"):
        tokenize(tmp_path / "list.csv", tmp_path / "strict", strict=True)


def test_a_run_in_which_nothing_succeeds_ends_with_1_and_the_first_reason(tmp_path, run):
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav", "duration": NaN}\n{"path": ""}\n')
    for _ in range(2):  # begun, and gone on with
        code, _, err = run("tokenize", tmp_path / "list.jsonl", "-c", "snac_tiny", "-o", "out", "-q", *ONE)
        assert code == 1
        assert "all 2 recordings failed. First failure: list.jsonl, row 1: InvalidInput: list.jsonl, row 1: duration is " in err
        assert len((tmp_path / "out/.run/failures.jsonl").read_text().splitlines()) == 2
        assert ids(tmp_path / "out") == []


def test_a_tar_gives_what_is_whole_in_it_and_is_named_once_if_it_breaks_off(tmp_path):
    audio(tmp_path / "in/good.flac")
    whole = tar(tmp_path / "whole.tar", "a.flac", "b.flac", "c.flac").read_bytes()
    member = 512 + -(-len(audio()) // 512) * 512
    (tmp_path / "in/cut.tar").write_bytes(whole[: member + 612])
    (tmp_path / "in/no.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "in/unmarked.tar").write_bytes(whole[: 3 * member])
    tar(tmp_path / "in/empty.tar")
    tar(tmp_path / "in/packed.tar.gz", "a.flac", mode="w:gz")
    os.rename(tar(tmp_path / "in/packed.gz", "a.flac", mode="w:gz"), tmp_path / "in/packed.tar")
    _, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert ids(tmp_path / "out") == ["cut.tar/a.flac", "good.flac", *(f"unmarked.tar/{name}.flac" for name in "abc")]
    said = {row["id"]: row["error"] for row in failures}
    assert said.keys() == {"cut.tar", "no.tar", "unmarked.tar", "empty.tar", "packed.tar.gz", "packed.tar"}
    for name, words in {
        "cut.tar": "is truncated in b.flac",
        "no.tar": "cannot be read as a tar",
        "unmarked.tar": "it has no end marker",
        "empty.tar": "has no audio",
        "packed.tar.gz": "Decompress it with gunzip",
        "packed.tar": "Decompress it with gunzip",
    }.items():
        assert words in said[name]


def test_a_tar_by_itself_that_is_none_or_is_compressed_is_an_error(tmp_path):
    for path, says in (
        (tar(tmp_path / "a.tar.gz", "a.flac", mode="w:gz"), "Decompress it with gunzip"),
        (tar(tmp_path / "b.tar"), "has no audio"),
    ):
        with pytest.raises(bc.InvalidInput, match=says):
            tokenize(path, tmp_path / "out")


def test_members_of_tars_are_known_by_what_they_hold(tmp_path, without_av):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in (
            ("a/x.flac", audio()),
            ("ü" * 90 + ".flac", audio()),
            ("x.wav.data", audio()),
            ("y.txt", b"words"),
            ("z.m4a", b"\0\0\0\x20ftypM4A "),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.flac")
        link.type, link.linkname = tarfile.SYMTYPE, "a/x.flac"
        file.addfile(link)
    summary, failures = tokenize(path, tmp_path / "out")
    assert ids(tmp_path / "out") == ["a/x.flac", "ü" * 90 + ".flac", "x.wav.data"]
    assert summary.passed_over == {".m4a": 1}
    assert [failure["id"] for failure in failures] == ["link.flac"]
    assert "is a link to 'a/x.flac'" in failures[0]["error"]


def test_audio_in_a_folder_is_known_by_what_it_holds(tmp_path, run, without_av):
    for name, kind in (
        ("b.sph", "NIST"),
        ("c.aifc", "AIFF"),
        ("d.snd", "AU"),
        ("e.wave", "WAV"),
        ("f.voc", "VOC"),
        ("SA1.WAV", "NIST"),
        ("bare", "FLAC"),
    ):
        audio(tmp_path / "in" / name, kind)
    for name, data in (
        ("i.m4a", b"\0\0\0\x20ftypM4A "),
        ("j.m4a", b"\0\0\0\x20ftypM4A "),
        ("k.wma", b"?"),
        ("notes.txt", b"words"),
        ("p.jpg", b"\xff\xd8\xff\xe0"),
    ):
        (tmp_path / "in" / name).write_bytes(data)
    code, out, _ = run("tokenize", tmp_path / "in", "-c", "snac_tiny", "-o", "out", "--json", *ONE)
    report = json.loads(out)
    assert (code, report["recordings"], report["failed"]) == (0, 7, 0)
    assert report["passed_over"] == {".m4a": 2, ".wma": 1}
    code, _, err = run("tokenize", tmp_path / "in", "-c", "snac_tiny", "-o", "out", *ONE)
    assert "3 files were skipped: 2 .m4a (extra av), 1 .wma" in err


def test_a_folder_without_audio_says_what_is_there(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(bc.InvalidInput, match=r"has no audio: 3 files were skipped: 3 \.txt"):
        tokenize(tmp_path, tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="its links need rights")
def test_links_to_themselves_and_folders_that_cannot_be_read_cost_a_row(tmp_path, monkeypatch):
    audio(tmp_path / "in/a.flac")
    audio(tmp_path / "in/below/b.flac")
    (tmp_path / "in/loop").symlink_to("loop")
    (tmp_path / "in/loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "in/pipe")
    real = os.scandir

    def scandir(path):
        if str(path).rstrip("/").endswith("below"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    _, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert ids(tmp_path / "out") == ["a.flac"]
    assert sorted(row["id"] for row in failures) == ["below/", "loop", "loop.wav"]
    assert "Permission denied" in next(row["error"] for row in failures if row["id"] == "below/")


def test_short_recordings_share_a_tile_and_get_the_tokens_that_they_get_alone(tmp_path, monkeypatch):
    lengths = [0.02, 0.02, 0.05, 0.1, 0.11, 0.15, 0.3, 1.0, *[0.03] * 30]
    (tmp_path / "in").mkdir()
    for number, seconds in enumerate(lengths):
        soundfile.write(tmp_path / "in" / f"{number:02d}.wav", sound(seconds, 24_000, 1, number), 24_000, subtype="FLOAT")
    real, batches = bc.DynCodecProvider.encode_batch, []
    monkeypatch.setattr(
        bc.DynCodecProvider, "encode_batch", lambda self, items, *a, **k: batches.append(len(items)) or real(self, items, *a, **k)
    )
    tokenize(tmp_path / "in", tmp_path / "out")
    assert sum(batches) == sum(seconds < 0.16 for seconds in lengths)
    codec = bc.load("snac_tiny", device="cpu")
    for name, tokens in bc.read_tokens(tmp_path / "out"):
        pcm = soundfile.read(tmp_path / "in" / name, dtype="float32")[0]
        assert all(map(np.array_equal, tokens.codes, codec.encode(pcm, 24_000).codes))


def test_what_pyav_reads_is_taken(tmp_path):
    pytest.importorskip("av", reason="the extra `av` is not installed")
    audio(tmp_path / "in/a.flac")
    (tmp_path / "in/b.m4a").write_bytes(damaged_files.THROUGH_FFMPEG["m4a"]())
    (tmp_path / "in/c.webm").write_bytes(damaged_files.THROUGH_FFMPEG["webm"]())
    summary, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert ids(tmp_path / "out") == ["a.flac", "b.m4a", "c.webm"]
    assert failures == []
    assert summary.passed_over == {}


def test_recordings_that_are_cut(tmp_path):
    whole = damaged_files.MADE["wav"]()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.wav").write_bytes(whole)
    (tmp_path / "in/cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/loud.wav").write_bytes(damaged_files.by_libsndfile("WAV", "FLOAT")(gain=100))
    _, failures = tokenize(tmp_path / "in", tmp_path / "out")
    assert [failure["id"] for failure in failures] == ["cut.wav"]
    assert failures[0]["error"].startswith("CorruptFile: ")
    assert "its header states 64000 bytes of audio" in failures[0]["error"]
    summary, failures = tokenize(tmp_path / "in", tmp_path / "kept", truncated="keep")
    assert failures == []
    assert summary.remarked == 2
    remarks = {row["id"]: row["remarks"] for row in pq.read_table(tmp_path / "kept").to_pylist()}
    assert remarks["a.wav"] == []
    assert "its header states 64000 bytes of audio" in remarks["cut.wav"][0]
    assert "where 1 is full scale" in remarks["loud.wav"][0]


def test_one_recording_of_each_kind_costs_a_row_or_gives_its_samples(tmp_path):
    """Codings in which libsndfile cannot seek, lengths that are not known, streams that were joined."""
    ogg, flac = damaged_files.MADE["ogg"](), damaged_files.of_unknown_length(damaged_files.MADE["flac"]())
    (tmp_path / "in").mkdir()
    for name, data in {
        "gsm.wav": damaged_files.by_libsndfile("WAV", "GSM610")(),
        "g721.wav": damaged_files.by_libsndfile("WAV", "G721_32")(),
        "joined.ogg": ogg + ogg,
        "pipe.flac": flac,
        "pipe.wav": damaged_files.with_sizes(damaged_files.MADE["wav"](), 0, 0),
    }.items():
        (tmp_path / "in" / name).write_bytes(data)
    rows = [{"path": f"in/{name}", "start": 0.5, "end": 1.5} for name in os.listdir(tmp_path / "in")]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source, count in ((tmp_path / "in", None), (tmp_path / "parts.jsonl", damaged_files.RATE)):
        _, failures = tokenize(source, tmp_path / f"out {source.name}")
        assert failures == []
        table = pq.read_table(tmp_path / f"out {source.name}").to_pylist()
        found = {Path(row["path"]).name: row["source_num_samples"] for row in table}
        if count is None:
            assert found == {"gsm.wav": 32_000, "g721.wav": 32_040, "joined.ogg": 64_000, "pipe.flac": 32_000, "pipe.wav": 32_000}
        else:
            assert set(found.values()) == {count}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"path": "a.flac", "id": "x", "start": 1e308}', "start is 1e+308 s; times may be up to 1e+09 s"),
        ('{"path": "a.flac", "id": "x", "start": 1e999}', "start is inf; expected a number of seconds"),
        ('{"path": "a.flac", "id": "x", "duration": 1e300}', "duration is 1e+300 s"),
        ('{"path": "a.flac", "id": "x", "n": ' + "9" * 5000 + "}", "has a number with too many digits"),
        ('{"path": "a.flac", "id": "x", "n": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ('{"path": "\\ud800.flac", "id": "\\ud800"}', "is not a file"),
        ('{"path": "file://[x/a.flac", "id": "x"}', "is not a file URL"),
        ('{"path": "folder", "id": "x"}', "is not a file"),
        ('{"path": "a.flac/b", "id": "x"}', "is not a file"),
    ],
)
def test_a_row_that_harms_costs_itself(tmp_path, row, says):
    audio(tmp_path / "a.flac")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jsonl").write_text('{"path": "a.flac"}\n' + row + "\n")
    summary, failures = tokenize(tmp_path / "a.jsonl", tmp_path / "out")
    assert (summary.rows, summary.failed) == (1, 1)
    assert says in failures[0]["error"]


def test_an_id_with_half_a_character_is_written_out(tmp_path):
    audio(tmp_path / "a.flac")
    (tmp_path / "a.jsonl").write_text('{"path": "a.flac", "id": "\\ud800", "text": "\\udfff"}\n')
    summary, _ = tokenize(tmp_path / "a.jsonl", tmp_path / "out", columns=["text"])
    assert (summary.rows, ids(tmp_path / "out")) == (1, ["\\ud800"])


@pytest.mark.parametrize("line", ["u file://[x/a.flac", "u a.flac\0"])
def test_a_line_of_kaldi_that_harms_costs_itself(tmp_path, line):
    audio(tmp_path / "a.flac")
    (tmp_path / "wav.scp").write_text(f"t a.flac\n{line}\n")
    summary, _ = tokenize(tmp_path / "wav.scp", tmp_path / "out")
    assert (summary.rows, summary.failed) == (1, 1)


def test_columns_of_other_types_are_errors_of_their_file(tmp_path):
    import pyarrow as pa

    audio(tmp_path / "a.flac")
    bc.tokenize_dataset(tmp_path / "a.flac", "snac_tiny", tmp_path / "tokens", executor=HERE)
    (file,) = shards.files(tmp_path / "tokens")
    table = pq.read_table(file)
    others = {
        "int": pa.array([3]),
        "text": pa.array(["x"]),
        "bytes": pa.array([b"\xff"]),
        "list": pa.array([[1]]),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "null": pa.nulls(1),
        "struct": pa.array([{"a": 1}]),
        "nested": pa.array([[[["x"]]]]),
        "time": pa.array([2**62], pa.timestamp("ns")),
    }
    for name in table.schema.names:
        for column in others.values():
            changed = table.set_column(table.schema.get_field_index(name), name, column)
            pq.write_table(changed, tmp_path / "changed.parquet")
            for work in (
                lambda: list(bc.read_tokens(tmp_path / "changed.parquet")),
                lambda: list(shards.FORMATS["parquet"].listing(tmp_path / "changed.parquet")),
            ):
                with contextlib.suppress(bc.CorruptFile):  # and nothing else
                    work()
    for changed, says in (
        (table.set_column(0, "id", others["int"]), "id is int 3; expected text"),
        (table.drop_columns(["duration"]), "the column 'duration' is missing"),
    ):
        pq.write_table(changed, tmp_path / "changed.parquet")
        with pytest.raises(bc.CorruptFile, match=says):
            bc.detokenize_dataset(tmp_path / "changed.parquet", tmp_path / "out", executor=HERE)
