"""Columns of a list that travel along."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards
from tests.helpers.corpora import sound

HERE = bc.Executor(workers=1)
ROWS = [
    {"path": "a.wav", "id": "1", "text": "hello", "speaker": 7, "snr": 3, "ok": True, "tags": ["x", {"y": 1}], "age": "20"},
    {
        "path": "a.wav",
        "id": "2",
        "text": "wörld",
        "speaker": 8,
        "snr": 2.5,
        "ok": None,
        "tags": None,
        "age": 30,
        "bandwidth": "low",
    },
    {"path": "a.wav", "id": "3", "text": ""},
]


@pytest.fixture
def folder(tmp_path) -> Path:
    soundfile.write(tmp_path / "a.wav", sound(0.1, 24_000, 1), 24_000)
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path


def tokenize(source: Path, out: Path, columns, **options) -> bc.Summary:
    return bc.tokenize_dataset(source, "snac_tiny", out, columns=columns, executor=HERE, **options)


def carried(out: Path) -> list[dict]:
    return [dict(row.carried) for file in shards.files(out) for row in shards.format_of(file).read(file)]


EXPECTED = [
    {"text": "hello", "speaker": 7, "snr": 3.0, "ok": True, "tags": '["x", {"y": 1}]', "age": "20", "source_bandwidth": None},
    {"text": "wörld", "speaker": 8, "snr": 2.5, "ok": None, "tags": None, "age": "30", "source_bandwidth": "low"},
    {"text": "", "speaker": None, "snr": None, "ok": None, "tags": None, "age": None, "source_bandwidth": None},
]


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_all_columns_travel_into_every_shard_with_the_type_of_all_their_values(folder, kind):
    tokenize(folder / "list.jsonl", folder / "out", "all", format=kind, shard_minutes=0.001)
    assert len(shards.files(folder / "out")) == 3
    assert carried(folder / "out") == EXPECTED
    assert [tokens.seconds for _, tokens in bc.read_tokens(folder / "out")] == [0.1] * 3
    if kind == "parquet":
        for file in shards.files(folder / "out"):
            schema = pa.parquet.read_schema(file)
            types = {name: str(schema.field(name).type) for name in EXPECTED[0]}
            assert types == {
                "text": "string", "speaker": "int64", "snr": "double", "ok": "bool", "tags": "string", "age": "string",
                "source_bandwidth": "string",
            }  # fmt: skip
        for row in pa.parquet.read_table(folder / "out").to_pylist():
            assert bc.tokens_from_row(row).seconds == 0.1


def test_columns_are_chosen_by_name_also_those_that_a_recording_is_found_by(folder):
    tokenize(folder / "list.jsonl", folder / "out", ["speaker", "id"])
    assert carried(folder / "out") == [{"speaker": row.get("speaker"), "source_id": row["id"]} for row in ROWS]


TEXTS = {
    "n": (["3", "-4", ""], [3, -4, None]),
    "x": (["1.5", "2.0", ""], [1.5, 2.0, None]),
    "ok": (["true", "false", ""], [True, False, None]),
    "zip": (["007", "010", ""], None),
    "price": (["1.10", "2.50", "3.75"], None),
    "digits": (["0.12345678901234567890", "0.5", "0.25"], None),
    "mixed": (["1", "2.5", "3"], None),
    "power": (["1E5", "1e+16", "1e5"], None),
    "large": (["123456789012345678901234567890", "1", "2"], None),
    "yes": (["True", "False", "True"], None),
    "both": (["true", "True", "false"], None),
    "nan": (["nan", "inf", "1.5"], None),
    "zero": (["-0", "0", "1"], None),
    "thai": (["๓", "๔", "๕"], None),
    "word": (["a", "", "3"], None),
    "blank": ([" x", "y ", " "], None),
    "count": (["3", " 4", "5"], None),
}
"""Values of a column of text, and what they are in a dataset if that is not the same."""


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t"), ("psv", "|")])
def test_text_is_a_number_only_where_it_would_be_written_the_same(folder, suffix, separator):
    rows = zip(["path", *["a.wav"] * 3], ["id", "1", "2", "3"], *([name, *TEXTS[name][0]] for name in TEXTS), strict=True)
    (folder / f"list.{suffix}").write_text("\n".join(map(separator.join, rows)))
    tokenize(folder / f"list.{suffix}", folder / "out", "all")
    found = carried(folder / "out")
    assert {name: [row[name] for row in found] for name in TEXTS} == {name: made or text for name, (text, made) in TEXTS.items()}


def test_values_with_types_stay_as_they_are(folder):
    values = {"x": [1.5, math.nan, None], "n": [1, None, 3], "text": [" a ", "", None], "d": ["1.0", "2", "3"]}
    rows = [
        {"path": "a.wav", "id": str(number), **{name: column[number] for name, column in values.items()}} for number in range(3)
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "p.parquet")
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, kind in (("p.parquet", "parquet"), ("p.jsonl", "parquet"), ("p.parquet", "tar")):
        out = folder / f"out {name} {kind}"
        tokenize(folder / name, out, "all", format=kind)
        assert repr([row[column] for row in carried(out) for column in values]) == repr(
            [values[column][number] for number in range(3) for column in values]
        )


def test_columns_of_parquet_travel_beside_audio(folder):
    row = {"audio": {"bytes": (folder / "a.wav").read_bytes(), "path": "a.wav"}, "text": "x", "n": 3}
    pa.parquet.write_table(pa.Table.from_pylist([row] * 5), folder / "p.parquet", row_group_size=2)
    summary = tokenize(folder / "p.parquet", folder / "out", "all")
    assert summary.rows == 5
    assert carried(folder / "out") == [{"text": "x", "n": 3}] * 5
    codec = bc.load("snac_tiny", device="cpu")
    expected = codec.encode(soundfile.read(folder / "a.wav", dtype="float32")[0], 24_000)
    for _, tokens in bc.read_tokens(folder / "out"):
        assert (tokens.codes[0] == expected.codes[0]).all()


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffx")])
ODD = {
    "timestamp[ns]": (pa.array([1, 1000], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000001"]),
    "time64[ns]": (pa.array([1, 1000], pa.time64("ns")), ["00:00:00.000000001", "00:00:00.000001"]),
    "duration[ns]": (pa.array([1, 1000], pa.duration("ns")), ["1 ns", "0:00:00.000001"]),
    "date32": (pa.array([2**31 - 1, 1], pa.date32()), ["2147483647 days", "1970-01-02"]),
    "a zone": (
        pa.array([1, 1000], pa.timestamp("us", "Nowhere/Known")),
        ["1970-01-01 00:00:00.000001+00:00", "1970-01-01 00:00:00.001000+00:00"],
    ),
    "text": (NOT_UTF8, ["\\udcff", "x"]),
}
"""Columns with a value that Python does not have, and as they travel along."""


@pytest.mark.parametrize("kind", ODD)
def test_a_value_that_python_does_not_have_is_carried_as_text_and_read_only_then(folder, kind):
    column, expected = ODD[kind]
    pa.parquet.write_table(pa.table({"path": ["a.wav"] * 2, "id": ["1", "2"], "odd": column}), folder / "p.parquet")
    assert tokenize(folder / "p.parquet", folder / "none", []).rows == 2
    for columns in ("odd", "all"):
        tokenize(folder / "p.parquet", folder / columns, columns)
        assert carried(folder / columns) == [{"odd": text} for text in expected]


def test_a_value_in_a_list_that_python_does_not_have_costs_its_row(folder):
    odd = pa.ListArray.from_arrays(pa.array([0, 1, 2]), NOT_UTF8)
    pa.parquet.write_table(pa.table({"path": ["a.wav"] * 2, "id": ["1", "2"], "odd": odd}), folder / "p.parquet")
    summary = tokenize(folder / "p.parquet", folder / "out", "odd")
    assert (summary.rows, summary.failed) == (1, 1)
    assert "row 1: the column 'odd' has a value of " in summary.failures.read_text()
    assert tokenize(folder / "p.parquet", folder / "none", []).rows == 2


def test_long_lists_beside_the_audio_are_not_read_unless_they_are_asked_for(folder):
    array = [[0.5] * 1_600_000] * 2
    audio = [{"bytes": (folder / "a.wav").read_bytes(), "path": "a.wav", "array": values} for values in array]
    pa.parquet.write_table(pa.table({"path": ["a.wav"] * 2, "id": ["1", "2"], "array": array}), folder / "p.parquet")
    pa.parquet.write_table(pa.table({"audio": audio, "mel": array}), folder / "q.parquet")
    for name in ("p.parquet", "q.parquet"):
        assert tokenize(folder / name, folder / f"of {name}", []).rows == 2
    summary = tokenize(folder / "p.parquet", folder / "all", "all")
    assert summary.failed == 2
    assert "are read, in column 'array'" in summary.failures.read_text()


def test_a_column_that_only_broken_rows_have_is_there(folder):
    (folder / "broken.jsonl").write_text('{"path": "a.wav", "text": "x"}\n{"path": "", "extra": 3}\n')
    summary = tokenize(folder / "broken.jsonl", folder / "out", ["text", "extra"])
    assert (summary.rows, summary.failed) == (1, 1)
    assert carried(folder / "out") == [{"text": "x", "extra": None}]
    table = pa.table({"path": ["a.wav", ""], "extra": [None, "y"]})
    pa.parquet.write_table(table, folder / "broken.parquet")
    assert tokenize(folder / "broken.parquet", folder / "too", ["extra"]).failed == 1
    with pytest.raises(bc.InvalidInput, match=r"no column 'nosuch'; its columns are 'path', 'extra'"):
        tokenize(folder / "broken.parquet", folder / "no", ["nosuch"])


def test_a_manifest_of_parts_gives_the_tokens_of_those_parts(folder):
    pcm = sound(2.0, 24_000, 1)
    soundfile.write(folder / "long.wav", pcm, 24_000, subtype="FLOAT")
    row = {"audio_filepath": "long.wav", "offset": 0.5, "duration": 0.75, "text": "x"}
    (folder / "nemo.json").write_text(json.dumps(row) + "\n")
    tokenize(folder / "nemo.json", folder / "out", "text")
    ((name, tokens),) = bc.read_tokens(folder / "out")
    expected = bc.load("snac_tiny", device="cpu").encode(pcm[12_000:30_000, 0], 24_000)
    assert (name, tokens.num_samples) == ("long.wav#0.5-1.25", 18_000)
    assert all((own == other).all() for own, other in zip(tokens.codes, expected.codes, strict=True))


def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(folder):
    (folder / "list.csv").write_text("path,text\na.wav,x\n")
    for source in ("list.jsonl", "list.csv"):
        with pytest.raises(bc.InvalidInput, match=r"no column 'nosuch'; its columns are 'path'.*'text'"):
            tokenize(folder / source, folder / "out", ["text", "nosuch"])
    with pytest.raises(bc.InvalidInput, match="so it has no columns to carry"):
        tokenize(folder, folder / "out", ["text"])
    assert not (folder / "out").exists()


def test_a_run_that_goes_on_carries_the_same_columns(folder):
    tokenize(folder / "list.jsonl", folder / "out", ["text"], shard_minutes=0.001)
    lost = shards.files(folder / "out")[1]
    journal = folder / "out/.run/journal.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if json.loads(line)["shard"] != 1))
    before = lost.read_bytes()
    lost.unlink()
    tokenize(folder / "list.jsonl", folder / "out", ["text"], shard_minutes=0.001)
    assert lost.read_bytes() == before
    with pytest.raises(bc.InvalidInput, match="different options: columns"):
        tokenize(folder / "list.jsonl", folder / "out", ["speaker"], shard_minutes=0.001)


def test_the_command_takes_names_of_columns(folder, run):
    code, _, _ = run(
        "tokenize",
        folder / "list.jsonl",
        "-c",
        "snac_tiny",
        "-o",
        "out",
        "--columns",
        "text, speaker",
        "--workers",
        "1",
        "--device",
        "cpu",
    )
    assert code == 0
    assert [row["speaker"] for row in carried(folder / "out")] == [7, 8, None]
