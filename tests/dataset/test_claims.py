"""A journal is a claim: what it says is done is looked at before it is believed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
import zlib
from pathlib import Path

import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import plan, run_state, seals, shards
from blazen_codec_core.dataset.codebook_usage import CodebookUsage
from blazen_codec_core.dataset.run_state import ShardResult, Totals
from tests.helpers.corpora import sound

HERE = bc.Executor(workers=1)


def tokenize(source, out, **options) -> bc.Summary:
    return bc.tokenize_dataset(source, "snac_tiny", out, **{"executor": HERE, "shard_minutes": 0.05, **options})


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.files(out)}


@pytest.fixture
def source(recordings, tmp_path) -> Path:
    shutil.copytree(recordings, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory) -> Path:
    """A run that has ended, to be copied."""
    out = tmp_path_factory.mktemp("finished") / "out"
    tokenize(recordings, out)
    return out


@pytest.fixture(params=["parquet", "tar"])
def begun(source, tmp_path, request):
    """A run that has ended, and how to go on with it."""
    tokenize(source, tmp_path / "out", format=request.param)
    return tmp_path / "out", lambda **options: tokenize(source, tmp_path / "out", format=request.param, **options)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("harm", [Path.unlink, cut, change, lambda path: path.write_bytes(b"")])
def test_a_shard_that_is_not_as_it_was_written_is_made_again(begun, harm):
    out, go_on = begun
    before = contents(out)
    harm(shards.files(out)[1])
    summary = go_on()
    assert contents(out) == before
    assert 0 < summary.new_seconds < summary.seconds
    assert (summary.rows, summary.failed) == (10, 2)
    assert go_on().new_seconds == 0


def test_a_recording_that_has_changed_is_refused(begun, source):
    out, go_on = begun
    before, path = contents(out), source / "speaker0/0003.wav"
    data, times = path.read_bytes(), path.stat()
    soundfile.write(path, sound(0.5, 16_000, 1), 16_000)
    for options in ({}, {"retry_failed": True}):
        with pytest.raises(bc.InvalidInput, match=r"speaker0/0003\.wav changed since .* was started"):
            go_on(**options)
    path.unlink()
    with pytest.raises(bc.InvalidInput, match="changed since"):
        go_on()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert go_on().new_seconds == 0
    assert contents(out) == before


def test_a_recording_that_failed_may_be_mended(begun, source):
    _, go_on = begun
    soundfile.write(source / "speaker0/0000.wav", sound(0.5, 16_000, 1), 16_000)
    assert go_on().failed == 2
    assert go_on(retry_failed=True).failed == 1


def test_content_is_compared_where_it_is_asked_for(source, tmp_path, run):
    out, path = tmp_path / "out", source / "speaker0/0003.wav"
    tokenize(source, out, verify="content")
    os.utime(path, (1, 1))
    assert tokenize(source, out, verify="content").new_seconds == 0  # a time says nothing then
    change(path)
    with pytest.raises(bc.InvalidInput, match=r"0003\.wav changed since"):
        tokenize(source, out, verify="content")
    with pytest.raises(bc.InvalidInput, match="verify 'content' → 'times'"):
        tokenize(source, out)
    code, _, err = run("tokenize", source, "-c", "snac_tiny", "-o", out, "--shard-minutes", "0.05", "--verify", "content", "-q")
    assert code != 0
    assert "changed since" in err


def test_recordings_in_tars_and_parquet_are_known_by_those(source, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.helpers.corpora import tar_of

    path = source / "speaker0/0003.wav"
    table = pa.table({"audio": [{"bytes": path.read_bytes(), "path": None}]})
    pq.write_table(table, tmp_path / "a.parquet")
    tar_of(source, tmp_path / "a.tar")
    for name in ("a.parquet", "a.tar"):
        tokenize(tmp_path / name, tmp_path / f"of {name}")
        os.utime(tmp_path / name, (1, 1))
        with pytest.raises(bc.InvalidInput, match=f"{name}.* changed since"):
            tokenize(tmp_path / name, tmp_path / f"of {name}")


def lines(out: Path) -> list[bytes]:
    return (out / ".run/journal.jsonl").read_bytes().splitlines(keepends=True)


def said(line: bytes, **changes: object) -> bytes:
    """A line of a journal with other values, and the checksum that it had."""
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: b"not JSON\n",
        lambda line: b"\n",
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b"[]\n",
        lambda line: b'{"shard": ' + b"9" * 5000 + b"}\n",
        lambda line: said(line, shard=1 << 70),
        lambda line: said(line, rows=-1),
        lambda line: said(line, rows=2),
        lambda line: said(line, seconds="1"),
        lambda line: line.replace(b'"rows": ', b'"rows":  '),
        lambda line: line.replace(b'"seconds": ', b'"seconds": 1'),
        lambda line: line[:40] + b"\n",
        lambda line: seals.sealed({"shard": 0}) + b"\n",
    ],
)
def test_a_line_in_the_middle_that_no_run_wrote_is_refused(recordings, finished, tmp_path, spoil):
    out = shutil.copytree(finished, tmp_path / "out")
    first, second, *others = lines(out)
    (out / ".run/journal.jsonl").write_bytes(b"".join([first, spoil(second), *others]))
    before = contents(out)
    with pytest.raises(bc.CorruptFile, match=r"journal\.jsonl, line 2, was changed or belongs to another run: .*remove"):
        tokenize(recordings, out)
    assert contents(out) == before


def test_without_its_journal_a_run_is_done_anew(recordings, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    before = contents(out)
    (out / ".run/journal.jsonl").unlink()  # as errors about its lines say
    summary = tokenize(recordings, out)
    assert summary.rows == 10
    assert summary.new_seconds == summary.seconds
    assert contents(out) == before


def test_a_line_of_another_dataset_is_refused(source, tmp_path):
    tokenize(source, tmp_path / "one")
    tokenize(source, tmp_path / "other", mono=True)
    (tmp_path / "one/.run/journal.jsonl").write_bytes(b"".join(lines(tmp_path / "other")))
    with pytest.raises(bc.CorruptFile, match="line 1, was changed or belongs to another run"):
        tokenize(source, tmp_path / "one")


@pytest.mark.parametrize("rest", [b"", b'{"shard": 1, "ro', b"\0" * 4096])
def test_an_end_that_a_kill_or_a_crash_left_is_no_harm(recordings, finished, tmp_path, rest):
    out = shutil.copytree(finished, tmp_path / "out")
    before, whole = contents(out), lines(out)
    (out / ".run/journal.jsonl").write_bytes(b"".join(whole[:-1]) + rest)
    assert tokenize(recordings, out).rows == 10
    assert contents(out) == before


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shard": 7}, "names shard 7 of 3"),
        ({"shard": -1}, "line 1"),
        ({"shard": True}, "line 1"),
        ({"rows": 1.5}, "line 1"),
        ({"seconds": float("inf")}, "line 1"),
        ({"took": -1.0}, "line 1"),
        ({"used": "abc"}, "line 1"),
        ({"used": [3]}, "line 1"),
        ({"failures": [{"id": "a"}]}, "line 1"),
        ({"failures": [{"id": 1, "path": "", "error": ""}]}, "line 1"),
        ({"more": 1}, "line 1"),
        ({"digest": None}, "line 1"),
    ],
)
def test_wrong_types_and_numbers_are_refused_whatever_the_checksum(tmp_path, wrong, says):
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({})
        kept.note(ShardResult(0, 1, 2.0, 0.5))
        path = kept.folder / "journal.jsonl"
        right = json.loads(path.read_text())
        right.pop("check")
        key = kept._key
        path.write_bytes(seals.sealed({**right, **wrong}, key) + b"\n")
        with pytest.raises(bc.CorruptFile, match=says):
            list(kept.journal(3))


@pytest.mark.parametrize(
    "packed",
    ["?", "AAAA", base64.b64encode(zlib.compress(bytes(1 << 20))).decode(), base64.b64encode(zlib.compress(b"")).decode()],
)
def test_codebooks_of_a_journal_that_are_damaged_or_too_large_are_refused(packed):
    with pytest.raises(bc.CorruptFile, match="the journal"):
        Totals(CodebookUsage(100)).add(ShardResult(0, 1, 2.0, 0.5, used=(packed,)))


@pytest.mark.parametrize("name", ["items.jsonl", "plan.json", "dataset.json"])
def test_a_plan_that_was_changed_is_refused(source, tmp_path, name):
    out = tmp_path / "out"
    tokenize(source, out)
    path = out / ".run" / name
    data = path.read_bytes()
    for bad in (data.replace(b"0003", b"0004").replace(b"snac", b"dac"), data[:-9], b"", b"[" * 100_000, b"[]", b"{}"):
        if bad != data:
            path.write_bytes(bad)
            with pytest.raises((bc.CorruptFile, bc.InvalidInput)):
                tokenize(source, out)
    path.write_bytes(data)
    assert tokenize(source, out).new_seconds == 0


def test_a_journal_of_another_plan_is_not_believed(source, tmp_path):
    out, listed = tmp_path / "out", tmp_path / "list.jsonl"

    def go_on(ids: str) -> list[str]:
        rows = [json.dumps({"path": "in/speaker0/0003.wav", "id": id}) for id in ids]
        listed.write_text("\n".join(rows))
        tokenize(listed, out)
        return [row.id for file in shards.files(out) for row in shards.format_of(file).read(file)]

    assert go_on("abcd") == list("abcd")
    before = lines(out)
    (out / ".run/dataset.json").unlink()
    for _ in range(2):
        with pytest.raises(bc.InvalidInput, match=r"dataset\.json is missing, .* or remove the journal"):
            go_on("wxyz")
        assert lines(out) == before
    (out / ".run/journal.jsonl").unlink()  # as the error says
    assert go_on("wxyz") == list("wxyz")


def test_shards_of_another_plan_are_not_joined(begun, source):
    out, go_on = begun
    before = contents(out)
    assert len(before) > 1
    for name in ("journal.jsonl", "dataset.json"):
        (out / ".run" / name).unlink()
    with pytest.raises(
        bc.InvalidInput, match=rf"has shards of another run: .*{min(before)}.*Move them away or choose another folder"
    ):
        go_on(shard_minutes=60)
    assert contents(out) == before
    for name in before:
        (out / name).unlink()
    assert go_on(shard_minutes=60).rows == 10
    assert len(contents(out)) == 1


def test_a_plan_of_wrong_types_is_refused(tmp_path):
    right = {"root": "/", "digest": "", "content": "", "cuts": [[0, 1, 1.0]], "is_guess": False, "columns": []}
    (tmp_path / plan.CUTS).write_bytes(seals.sealed(right))
    assert plan.read(tmp_path).cuts[0].items == 1
    for wrong in (
        {"root": 3},
        {"cuts": [[0, -1, 1.0]]},
        {"cuts": []},
        {"cuts": [[0, 1]]},
        {"cuts": 3},
        {"cuts": [[0, 1, 1e999]]},
        {"columns": [3]},
    ):
        (tmp_path / plan.CUTS).write_bytes(seals.sealed({**right, **wrong}))
        with pytest.raises(bc.CorruptFile, match=r"plan\.json cannot be read"):
            plan.read(tmp_path)


def test_audio_that_is_gone_or_changed_is_decoded_again(source, tmp_path):
    out = tmp_path / "out"
    tokenize(source, tmp_path / "tokens")
    bc.detokenize_dataset(tmp_path / "tokens", out, executor=HERE)
    before = {path: path.read_bytes() for path in out.rglob("*.wav")}
    gone, short, *_ = before
    gone.unlink()
    short.write_bytes(b"")
    summary = bc.detokenize_dataset(tmp_path / "tokens", out, executor=HERE)
    assert summary.new_seconds > 0
    assert {path: path.read_bytes() for path in out.rglob("*.wav")} == before
    assert bc.detokenize_dataset(tmp_path / "tokens", out, executor=HERE).new_seconds == 0
    os.utime(shards.files(tmp_path / "tokens")[0], (1, 1))
    with pytest.raises(bc.InvalidInput, match="different options: tokens"):
        bc.detokenize_dataset(tmp_path / "tokens", out, executor=HERE)


def test_hundreds_of_shards_are_looked_at_in_no_more_time_than_they_take(tmp_path):
    listed = [json.dumps({"path": "a.wav", "id": str(number), "end": 0.1, "start": 0}) for number in range(200)]
    soundfile.write(tmp_path / "a.wav", voice(0.1, 24_000), 24_000)
    (tmp_path / "a.jsonl").write_text("\n".join(listed))
    out = tmp_path / "out"
    tokenize(tmp_path / "a.jsonl", out, shard_minutes=0.0001, executor=bc.Executor(workers=1))
    assert len(shards.files(out)) == 200
    started = time.process_time()
    assert tokenize(tmp_path / "a.jsonl", out, shard_minutes=0.0001).new_seconds == 0
    assert time.process_time() - started < 2
