"""Lists in the shapes that the field writes them in."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.dataset import sources
from blazen_codec_core.dataset.items import AudioItem, Fault
from blazen_codec_core.dataset.lists import columns
from blazen_codec_core.dataset.lists.columns import Kind, Meaning
from tests.helpers.corpora import sound


def entries(path: Path, *names: str) -> list[AudioItem | Fault]:
    return list(sources.find(path, names).entries)


def only(path: Path) -> AudioItem:
    (item,) = entries(path)
    assert isinstance(item, AudioItem), item
    return item


def faults(path: Path) -> list[str]:
    return [entry.error for entry in entries(path) if isinstance(entry, Fault)]


def write(path: Path, text: str | list | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, dict):
        text = json.dumps(text) + "\n"
    if isinstance(text, list):
        text = "".join(json.dumps(row) + "\n" for row in text)
    path.write_text(text)
    return path


SOURCE = {"type": "file", "channels": [0], "source": "a.flac"}
RECORDING = {"id": "r1", "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
CUT = {"id": "c1", "start": 0.25, "duration": 0.5, "channel": 0, "supervisions": [], "recording": RECORDING, "type": "MonoCut"}

SHAPES = {
    "Hugging Face's AudioFolder": ("metadata.csv", "file_name,transcription\na.flac,hi\n", AudioItem("a.flac", "a.flac")),
    "Hugging Face's struct": ("a.jsonl", {"audio": {"path": "a.flac", "bytes": None}}, AudioItem("a.flac", "a.flac")),
    "Hugging Face's audio as text": ("a.jsonl", {"audio": "a.flac"}, AudioItem("a.flac", "a.flac")),
    "JSON array": ("a.json", '[{"path": "a.flac"}]', AudioItem("a.flac", "a.flac")),
    "JSON array over lines": ("a.json", '[\n {\n  "path": "a.flac"\n }\n]\n', AudioItem("a.flac", "a.flac")),
    "JSON array of names": ("a.json", '["a.flac"]', AudioItem("a.flac", "a.flac")),
    "SpeechBrain": ("a.json", {"u": {"wav": "a.flac", "length": 3.5, "words": "x"}}, AudioItem("u", "a.flac")),
    "SpeechBrain over lines": ("a.json", '{\n "u": {\n  "wav": "a.flac"\n }\n}\n', AudioItem("u", "a.flac")),
    "JSON with a list in it": ("a.json", '{"version": 1,\n "data": [{"path": "a.flac"}]}', AudioItem("a.flac", "a.flac")),
    "NeMo": (
        "a.json",
        {"audio_filepath": "a.flac", "offset": 5.0, "duration": 2.5, "text": "x"},
        AudioItem("a.flac#5-7.5", "a.flac", start=5.0, end=7.5, lasts=2.5),
    ),
    "Lhotse's recording": ("a.jsonl", RECORDING, AudioItem("r1", "a.flac", lasts=1.0)),
    "Lhotse's cut": ("a.jsonl", CUT, AudioItem("c1", "a.flac", start=0.25, end=0.75, lasts=0.5)),
    "wenet": ("data.list", {"key": "u", "wav": "a.flac", "txt": "x"}, AudioItem("u", "a.flac")),
    "wenet's JSON": ("a.jsonl", {"key": "u", "wav": "a.flac", "txt": "x"}, AudioItem("u", "a.flac")),
    "fairseq": ("a.tsv", ".\na.flac\t16000\n", AudioItem("a.flac", "a.flac")),
    "semicolons": ("a.csv", "path;text\na.flac;x\n", AudioItem("a.flac", "a.flac")),
    "pipes": ("a.csv", 'path|text\na.flac|he said "x\n', AudioItem("a.flac", "a.flac")),
    "tabs": ("a.tsv", 'id\tpath\ttext\nu\ta.flac\t"x\n', AudioItem("u", "a.flac")),
    "names in any case, with blanks": ("a.csv", " Wav Path , Text\n a.flac , x\n\n", AudioItem("a.flac", "a.flac")),
    "names in camels": (
        "a.csv",
        "uttId,audioFilepath,startTime,endTime\nu,a.flac,1,2\n",
        AudioItem("u", "a.flac", start=1.0, end=2.0, lasts=1.0),
    ),
    "a mark of order and lines of Windows": ("a.csv", "\ufeffpath,text\r\na.flac,x\r\n", AudioItem("a.flac", "a.flac")),
    "text": ("a.txt", "\na.flac\n\n", AudioItem("a.flac", "a.flac")),
    "text with transcripts": ("a.txt", "a.flac|some words|1\n", AudioItem("a.flac", "a.flac")),
    "file addresses": ("a.jsonl", {"path": "file:///data/a%20b.flac"}, AudioItem("/data/a b.flac", "/data/a b.flac")),
    "milliseconds": (
        "a.csv",
        "path,start_ms,end_ms\na.flac,1500,2500\n",
        AudioItem("a.flac#1.5-2.5", "a.flac", start=1.5, end=2.5, lasts=1.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_the_field(tmp_path, shape):
    name, text, expected = SHAPES[shape]
    assert only(write(tmp_path / name, text)) == expected


@pytest.mark.parametrize("shape", ["NeMo", "semicolons", "JSON array"])
def test_lists_may_be_compressed(tmp_path, shape):
    name, text, expected = SHAPES[shape]
    plain = write(tmp_path / "plain", text)
    with gzip.open(tmp_path / f"{name}.gz", "wb") as file:
        file.write(plain.read_bytes())
    assert only(tmp_path / f"{name}.gz") == expected


def test_utf_16_is_told_by_its_mark(tmp_path):
    (tmp_path / "a.csv").write_text("path,text\nä.flac,x\n", encoding="utf-16")
    assert only(tmp_path / "a.csv").path == "ä.flac"


def test_common_voice_and_ljspeech_have_their_files_in_a_folder_beside_the_list(tmp_path):
    for name in ("cv/clips/one.mp3", "lj/wavs/LJ001-0001.wav", "beside/a.flac"):
        write(tmp_path / name, "")
    tsv = write(tmp_path / "cv/train.tsv", 'client_id\tpath\tsentence\tsegment\n1\tone.mp3\t"Ah, he said\t\n')
    assert (only(tsv).id, only(tsv).path) == ("one.mp3", "clips/one.mp3")
    csv = write(tmp_path / "lj/metadata.csv", 'LJ001-0001|Printing, "in the|printing\n')
    assert (only(csv).id, only(csv).path) == ("LJ001-0001", "wavs/LJ001-0001.wav")
    assert only(write(tmp_path / "beside/lj.csv", "a|text here|text\n")).path == "a.flac"
    with pytest.raises(bc.InvalidInput, match="has no path column"):
        entries(write(tmp_path / "beside/other.csv", "speaker|text here|text\nx|y|z\n"))


def test_kaldi_data_directories(tmp_path):
    write(tmp_path / "a.flac", "")
    scp = write(tmp_path / "wav.scp", "r1 a.flac\nr2 sox a.flac -t wav - |\nr3\n")
    item, pipe, nothing = entries(scp)
    assert item == AudioItem("r1", "a.flac")
    assert "commands in lists are not run" in pipe.error
    assert (pipe.id, nothing.id) == ("r2", "r3")
    segments = write(tmp_path / "segments", "u1 r1 0.5 1.25\nu2 r1 2 -1\nu3 r9 0 1\nu4 r1 2 1\nu5 r2 0 1\nu6 r1 0\n")
    for source in (tmp_path, scp, segments):
        found = entries(source)
        assert found[:2] == [AudioItem("u1", "a.flac", start=0.5, end=1.25, lasts=0.75), AudioItem("u2", "a.flac", start=2.0)]
        said = [entry.error for entry in found[2:]]
        for words, error in zip(
            ("r9 is not in wav.scp", "before it starts", "not run", "the segment has 3 fields"), said, strict=True
        ):
            assert words in error


def test_audio_inside_parquet_stays_there_until_it_is_asked_for(tmp_path):
    rows = [
        {"audio": {"bytes": b"RIFF", "path": "a.flac"}, "text": "x"},
        {"audio": {"bytes": None, "path": "b.flac"}, "text": "y"},
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet", row_group_size=1)
    one, other = entries(tmp_path / "p.parquet", "text")
    assert (one.id, one.name, one.cell) == ("p.parquet/0", "p.parquet:a.flac", ("audio.bytes", 0, 0))
    assert (other.id, other.cell) == ("p.parquet/1", ("audio.bytes", 1, 0))
    assert [item.carried for item in (one, other)] == [{"text": "x"}, {"text": "y"}]
    assert one.seconds(tmp_path) is None
    with pytest.raises(bc.InvalidInput, match=r"b\.flac is not a file"):
        other.open(tmp_path)


KINDS = {
    "binary": pa.array,
    "large": lambda audio: pa.array(audio, pa.large_binary()),
    "view": lambda audio: pa.array(audio).cast(pa.binary_view()),
    "dictionary": lambda audio: pa.array(audio).dictionary_encode(),
    "fixed": lambda audio: pa.array(audio, pa.binary(len(audio[0]))),
}
"""Types that bytes have in Arrow."""


@pytest.mark.parametrize("is_struct", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_audio_is_read_from_bytes_of_whatever_type(tmp_path, kind, is_struct):
    content = io.BytesIO()
    soundfile.write(content, sound(0.1, 24_000, 1), 24_000, format="WAV")
    audio = KINDS[kind]([content.getvalue()] * 2)
    struct = pa.StructArray.from_arrays([audio, pa.array(["a.wav", "b.wav"])], names=["bytes", "path"])
    pa.parquet.write_table(pa.table({"audio": struct} if is_struct else {"audio_bytes": audio}), tmp_path / "p.parquet")
    found = entries(tmp_path / "p.parquet", "all")
    assert [item.member for item in found] == (["a.wav", "b.wav"] if is_struct else [None, None])
    assert [item.open(tmp_path).num_samples for item in found] == [2400] * 2


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([[{"bytes": b"RIFF", "path": "a"}]]), "list<element: struct<bytes: binary, path: string>>"),
        (pa.array([[0.5] * 1_600_000]), "list<element: double>"),
        (pa.array([{"array": [0.5], "path": "a"}]), "struct<array: list<element: double>, path: string>"),
        (pa.array([3]), "int64"),
    ],
)
def test_a_column_of_parquet_that_is_none_of_paths_is_told_by_its_type(tmp_path, column, says):
    pa.parquet.write_table(pa.table({"audio": column, "channel": [0]}), tmp_path / "p.parquet")
    assert faults(tmp_path / "p.parquet") == [f"InvalidInput: p.parquet, row 1: the path is {says}; expected text"]
    pa.parquet.write_table(pa.table({"audio": column, "url": ["a.wav"]}), tmp_path / "q.parquet")
    assert only(tmp_path / "q.parquet").path == "a.wav"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"path": ""}, "the row has no path"),
        ({"path": None}, "the row has no path"),
        ({"path": 3}, "the path is 3; expected text"),
        ({"path": "a.wav", "duration": float("nan")}, "duration is nan; expected a number of seconds"),
        ({"path": "a.wav", "start": 2, "end": 1}, "ends at 1 s, before it starts"),
        ({"path": "a.wav", "start": -0.1}, "start is -0.1; expected a number of seconds"),
        ({"path": "a.wav", "start": "00:00:01"}, "start is '00:00:01'"),
        ({"path": "a.wav", "start": True}, "is True"),
        ({"path": "a.wav", "id": ["x"]}, "expected text or a number"),
        ({"path": "https://host/a.wav"}, "URLs are not downloaded"),
        ({"path": "s3://bucket/a.wav"}, "URLs are not downloaded"),
        ({"path": "a\0.wav"}, "contains a NUL character"),
        ({"audio": {"array": [0.0], "sampling_rate": 8000}}, "read from Parquet only"),
        ({**CUT, "channel": 1}, "channel 1 of [0]"),
        ({**RECORDING, "sources": [{**SOURCE, "type": "command"}]}, "commands in lists are not run"),
        ({**RECORDING, "sources": [SOURCE, SOURCE]}, "2 sources"),
        ({**RECORDING, "transforms": [{"name": "Speed"}]}, "transforms, which are not applied"),
        ({"id": "mixed", "tracks": []}, "mixes several tracks"),
    ],
)
def test_a_bad_row_is_a_fault_and_the_others_stay(tmp_path, row, says):
    path = write(tmp_path / "a.jsonl", [{"path": "good.wav"}, row, {"path": "also.wav"}])
    first, fault, last = entries(path)
    assert (first.id, last.id) == ("good.wav", "also.wav")
    assert says in fault.error
    assert fault.error.startswith("InvalidInput: a.jsonl, row 2: ")
    assert faults(write(tmp_path / "alone.jsonl", [row]))


def test_lines_that_are_broken_are_faults(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"path": "a.wav"}\n{"path": "b.wav"\n[1]\n{"path": "c.wav"}\n')
    assert [isinstance(entry, Fault) for entry in entries(path)] == [False, True, True, False]
    path = write(tmp_path / "a.json", '[{"path": "a.wav"}, {"path": "b.wav", ')
    assert [isinstance(entry, Fault) for entry in entries(path)] == [False, True]
    path = write(tmp_path / "a.csv", "path,text\na.wav\nb.wav,x,y\n")
    assert [isinstance(entry, Fault) for entry in entries(path)] == [False, True]


NAMES = {
    Meaning(Kind.START, 1.0): "start Offset begin_time onset t0 starttime start_offset segment_start tmin "
    "starts starts_at Start[s]",
    Meaning(Kind.END, 1.0): "end stop endTime end_sec t1 xmax ends_at",
    Meaning(Kind.DURATION, 1.0): "duration dur audio_duration duration_seconds length_s",
    Meaning(Kind.START, 1e-3): "start_ms startMs begin-ms start(ms)",
    Meaning(Kind.DURATION, 1e-3): "duration_ms",
    Meaning(Kind.DURATION, None): "length",
    Meaning(Kind.FACT): "num_samples n_frames frames num_frames",
    Meaning(Kind.UNKNOWN): "start_sample end_frame from to time timestamp frame_offset begin_x sample word_start text_end",
    Meaning(Kind.SPAN): "segment interval",
    Meaning(Kind.OTHER): "text sampling_rate sample_rate frame_rate text_length speaker sample_id segment_id gender sentence_id "
    "word_count title_length language created_at",
}


@pytest.mark.parametrize(("name", "expected"), [(name, meaning) for meaning, names in NAMES.items() for name in names.split()])
def test_names_of_columns_say_which_time_they_are(name, expected):
    assert columns.meaning(name) == expected


@pytest.mark.parametrize("name", ["start_sample", "from", "timestamp", "cut_begin", "frame_offset"])
def test_a_time_that_is_not_understood_is_an_error_and_not_ignored(tmp_path, name):
    path = write(tmp_path / "a.csv", f"path,{name}\na.flac,5\n")
    with pytest.raises(bc.InvalidInput, match=f"the column '{name}' seems to be a time, but is not recognized; expected start"):
        entries(path)
    (item,) = entries(path, name)  # carried along, it means what it may
    assert (item.start, item.end, item.carried) == (0.0, None, {name: "5"})


def test_what_times_mean_together(tmp_path):
    for row, says in (
        ({"path": "a.wav", "start": 1, "num_samples": 16000}, "the column 'num_samples' seems to be a time"),
        ({"path": "a.wav", "start": 1, "length": 2}, "the column 'length' seems to be a time"),
        ({"path": "a.wav", "start": 1, "offset": 2}, "'start' and 'offset' give different values"),
        ({"path": "a.wav", "segment": [0.5, 1.5]}, "the column 'segment' seems to be a time"),
    ):
        with pytest.raises(bc.InvalidInput, match=says):
            entries(write(tmp_path / "a.jsonl", row))
    row = {"path": "a.wav", "start": 1, "end": 2, "start_ms": 1000, "num_samples": 9, "time": "in the evening", "segment": ""}
    assert only(write(tmp_path / "a.jsonl", row)) == AudioItem("a.wav#1-2", "a.wav", start=1.0, end=2.0, lasts=1.0)
    row = {"path": "a.wav", "onset": 1, "offset": 2}  # of events
    assert only(write(tmp_path / "a.jsonl", row)) == AudioItem("a.wav#1-2", "a.wav", start=1.0, end=2.0, lasts=1.0)
    pa.parquet.write_table(pa.Table.from_pylist([{"audio": b"RIFF", "begin_time": 7.0}]), tmp_path / "p.parquet")
    with pytest.raises(bc.InvalidInput, match="the column 'begin_time' seems to be a time"):
        entries(tmp_path / "p.parquet")  # of what its audio was cut from, perhaps


@pytest.mark.parametrize(
    "row",
    [
        {"sentence_start": 0.5, "sentence_end": 1.5},
        {"speaker_start": 1},
        {"text_end": "1.5"},
        *({"timestamp": value} for value in ("0.5-1.5", "0.5,1.5", "[0.5, 1.5]", "00:01 --> 00:02.5", [0.5, 1.5])),
        {"timestamp": {"start": 0.5, "end": 1.5}},
        {"segment": {"start": 0.5, "end": 1.5}},
        {"segment": "0.5-1.5"},
        {"in_point": 0.5, "out_point": 1.5},
        {"from": 0.5, "to": 1.5},
        {"left": "0.5", "right": "1.5"},
        {"st": 0.5, "et": 1.5},
    ],
)
def test_other_ways_to_write_a_part_are_refused(tmp_path, row):
    with pytest.raises(bc.InvalidInput, match=f"the column '{next(iter(row))}' seems to be a time, but is not recognized"):
        entries(write(tmp_path / "a.jsonl", {"path": "a.wav", **row}))
    with pytest.raises(bc.InvalidInput, match="the column 'audio' seems to be a time"):
        entries(write(tmp_path / "a.jsonl", {"audio": {"path": "a.wav", "start": 0.5, "end": 1.5}}))


@pytest.mark.parametrize("names", ["start(ms),end(ms)", "Start [ms],End [ms]", "starts_ms,ends_ms"])
def test_units_are_read_in_whatever_brackets(tmp_path, names):
    expected = AudioItem("a.wav#0.5-1.5", "a.wav", start=0.5, end=1.5, lasts=1.0)
    assert only(write(tmp_path / "a.csv", f"path,{names}\na.wav,500,1500\n")) == expected
    assert only(write(tmp_path / "b.csv", "path,Start[s],End[s]\na.wav,0.5,1.5\n")) == expected
    assert only(write(tmp_path / "c.csv", "path,starts,ends\na.wav,0.5,1.5\n")) == expected


def test_columns_of_other_things_are_no_times(tmp_path):
    row = {
        "speaker_id": 3, "text": "5", "sentence": "1-2", "up_votes": 2, "down_votes": 0, "age": 20, "language": "en",
        "sampling_rate": 16000, "num_samples": 16000, "snr": 20.5, "c50": 60, "text_length": 5, "word_count": 2, "split": "train",
        "segment": 7, "left": "x", "right": 3, "st": 1, "created_at": "2020-01-01 10:00:00", "time": "2020-01-01",
    }  # fmt: skip
    expected = AudioItem("a.wav", "a.wav", lasts=1.0, carried=row)
    expected.carried.pop("num_samples")  # of the recording, as is its duration
    (item,) = entries(write(tmp_path / "a.jsonl", {"path": "a.wav", "duration": 1.0, "num_samples": 16000, **row}), "all")
    assert item == expected
    assert only(write(tmp_path / "b.tsv", "path\tsegment\tsentence\na.wav\t\tx\n")) == AudioItem("a.wav", "a.wav")
    assert only(write(tmp_path / "c.tsv", "path\tsegment\tsentence\na.wav\tBenchmark\tx\n")) == AudioItem("a.wav", "a.wav")
    assert only(write(tmp_path / "d.csv", "path,text\n001-002,x\n")) == AudioItem("001-002", "001-002")


@pytest.mark.parametrize("depth", [150, 900, 100_000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.list"])
def test_a_row_that_is_nested_too_deeply_is_a_fault_wherever_it_is(tmp_path, depth, name):
    deep = '{"path": "m.wav", "x": ' + "[" * depth + "]" * depth + "}\n"
    within = '{"path": "m.wav", "x": ' + '{"y":' * depth + "1" + "}" * depth + "}\n"
    for row in (deep, within, "[" * depth + "]" * depth + "\n"):
        good = '{"path": "s.wav"}\n'
        for text in (row + good, good + row + good) if row.startswith("{") else (good + row + good,):
            found = list(sources.find(write(tmp_path / name, text), ["all"]).entries)
            assert [isinstance(entry, Fault) for entry in found] == [line == row for line in text.splitlines(True)]


UNCLOSED = {
    "the path": 'path,text\n"m.wav,unclosed\ns.wav,a\n',
    "a text": 'path,text\nm.wav,"unclosed\ns.wav,a\n',
    "a text, up to a mark further down": 'path,text\nm.wav,"unclosed\ns.wav,"a"\n',
    "a text, up to a mark within a text": 'path,text\nm.wav,"unclosed\ns.wav,he said"\n',
    "a text of fields that all have marks": '"path","text"\n"m.wav","unclosed\n"s.wav","a"\n',
    "an id before the path": 'id,path,text\n"m,m.wav,unclosed\ns.wav,s.wav,a\n',
    "the last": 'path,text\ns.wav,a\nm.wav,"unclosed\n',
}


@pytest.mark.parametrize("case", UNCLOSED)
def test_a_quotation_mark_that_is_not_closed_costs_its_row(tmp_path, case):
    found = entries(write(tmp_path / "a.csv", UNCLOSED[case]))
    assert [entry.path for entry in found if isinstance(entry, AudioItem)] == ["s.wav"]
    (fault,) = (entry.error for entry in found if isinstance(entry, Fault))
    assert "a quotation mark is not closed: " in fault
    many = write(tmp_path / "b.csv", UNCLOSED[case] + "".join(f"{number}.wav,x\n" for number in range(20_000)))
    if case == "a text":
        assert [sum(isinstance(entry, kind) for entry in entries(many)) for kind in (AudioItem, Fault)] == [20_001, 1]


def test_line_breaks_within_quotation_marks_are_part_of_a_field(tmp_path):
    text = 'path,text,n\na.wav,"one, two\n\nthree, ""four"", five\nlast",1\nb.wav, "x\ny",2\r\nc.wav,z,3'
    found = entries(write(tmp_path / "a.csv", text), "text")
    assert [entry.carried["text"] for entry in found] == ['one, two\n\nthree, "four", five\nlast', "x\ny", "z"]


def test_blanks_are_part_of_what_travels_along_unless_the_names_are_padded_too(tmp_path):
    text = 'path,start,text,n\n a.wav , 1 , x , 3\nb.wav, 2, "y, z", 4\nc.wav,3,"v\nw", "4"\n'
    found = entries(write(tmp_path / "a.csv", text), "text", "n")
    assert [(item.path, item.start, *item.carried.values()) for item in found] == [
        ("a.wav", 1.0, " x ", " 3"), ("b.wav", 2.0, "y, z", "4"), ("c.wav", 3.0, "v\nw", "4"),
    ]  # fmt: skip
    (item,) = entries(write(tmp_path / "b.psv", "path | text\na.wav | x\n"), "text")
    assert (item.path, item.carried) == ("a.wav", {"text": "x"})


def test_an_element_that_is_nested_too_deeply_is_a_fault_within_an_array(tmp_path):
    for depth in (150, 100_000):
        deep = '{"path": "m.wav", "x]": "\\"]", "y": ' + "[" * depth + "]" * depth + "}"
        found = entries(write(tmp_path / "a.json", f'[{{"path": "r.wav"}}, {deep}, {{"path": "s.wav"}}]'))
        assert [entry.path for entry in found if isinstance(entry, AudioItem)] == ["r.wav", "s.wav"]
        assert "nested too deeply: more than 100 levels" in found[1].error


def test_no_row_is_passed_over_after_many_broken_ones(tmp_path):
    found = entries(write(tmp_path / "a.jsonl", "{broken\n" * 2500 + '{"path": "s.wav"}\n'))
    assert [isinstance(entry, Fault) for entry in found] == [True] * 2500 + [False]
