"""The journal, and who may write it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.dataset import run_state
from blazen_codec_core.dataset.codebook_usage import CodebookUsage
from blazen_codec_core.dataset.run_state import Failure, ShardResult, Totals
from blazen_codec_core.foreign_json import parse_object


def done(shard: int, rows: int = 1, failures: int = 0) -> ShardResult:
    return ShardResult(shard, rows, 2.0, 0.5, tuple(Failure(f"{shard}/{n}", "a.wav", "CorruptFile: no") for n in range(failures)))


@given(st.lists(st.lists(st.integers(0, 99), max_size=20), min_size=1, max_size=4), st.integers(0, 3))
def test_usage_is_the_same_packed_and_added(codes, others):
    whole, parts = CodebookUsage(100), CodebookUsage(100)
    for stretch in (codes, codes[: others + 1]):
        own = CodebookUsage(100)
        own.add([np.array(code, np.int32) for code in stretch])
        whole.add([np.array(code, np.int32) for code in stretch])
        parts.add_packed(own.packed)
    assert parts.shares == whole.shares == tuple(len(set(code)) / 100 for code in codes)


def test_the_journal_is_what_was_noted_up_to_a_line_that_was_not_finished(tmp_path):
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({})
        for number in range(3):
            kept.note(done(number, failures=number))
        kept.note(done(1, rows=5))
        path = kept.folder / "journal.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"shard": 4, "ro')
        expected = [done(0), done(2, failures=2), done(1, rows=5)]
        assert list(kept.journal()) == expected
        kept.tidy()
        assert path.read_bytes() == whole
        assert [json.loads(line)["id"] for line in kept.write_failures().read_text().splitlines()] == ["2/0", "2/1"]
    totals = Totals(CodebookUsage(10))
    for one in expected:
        totals.add(one)
    assert dataclasses.astuple(totals)[1:] == (7, 2, 0, 6.0, {0, 1, 2})


def test_a_journal_that_is_damaged_is_not_guessed_at(tmp_path):
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({})
        (kept.folder / "journal.jsonl").write_text('{"shard": 0}\n')
        with pytest.raises(bc.CorruptFile, match="line 1"):
            list(kept.journal())


def test_what_is_asked_for_otherwise_is_refused_with_the_difference(tmp_path):
    with run_state.open_run(tmp_path) as kept:
        assert not kept.agrees({"codec": "a", "bandwidth": 6.0})
        kept.note_asked({"codec": "a", "bandwidth": 6.0})
        assert kept.agrees({"codec": "a", "bandwidth": 6.0})
        with pytest.raises(bc.InvalidInput, match=r"different options: bandwidth 6.0 → 3.0; mono None → True\."):
            kept.agrees({"codec": "a", "bandwidth": 3.0, "mono": True})


def test_what_another_version_began_is_not_gone_on_with(tmp_path):
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({"version": 1, "codec": "a"})
        with pytest.raises(bc.InvalidInput, match="started by another version of blazen-codec"):
            kept.agrees({"version": 2, "codec": "a", "columns": []})


def test_what_a_machine_of_a_cluster_says_is_what_it_did():
    one = dataclasses.replace(done(3, failures=2), used=("AAAA",), size=9, digest="ab", seen="-" * 16)
    assert ShardResult.of(parse_object(json.dumps(dataclasses.asdict(one)).encode())) == one


def test_two_runs_cannot_have_the_same_books(tmp_path):
    with run_state.open_run(tmp_path) as kept:
        kept.note_asked({})
        with pytest.raises(bc.InvalidInput, match="another run is writing"), run_state.open_run(tmp_path):
            pass
    with run_state.open_run(tmp_path):
        pass


def test_nothing_stays_behind_where_nothing_began(tmp_path):
    with pytest.raises(KeyError), run_state.open_run(tmp_path / "a" / "new"):
        raise KeyError
    assert not (tmp_path / "a" / "new").exists()
    with pytest.raises(KeyError), run_state.open_run(tmp_path / "a"):
        raise KeyError
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(bc.InvalidInput, match="not empty"), run_state.open_run(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(bc.InvalidInput, match="cannot be written"), run_state.open_run(tmp_path / "file"):
        pass
