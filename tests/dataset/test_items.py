"""What is found to tokenise."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.audio import AudioReader
from blazen_codec_core.dataset import sources
from blazen_codec_core.dataset.items import AudioItem
from tests.helpers.corpora import sound, tar_of


def ids(source) -> list[str]:
    return [item.id for item in sources.find(source).entries]


def test_a_folder_is_walked_in_the_order_of_names_and_without_what_is_hidden(tmp_path):
    for name in ("b.wav", "a/2.FLAC", "a/1.ogg", "a/notes.txt", "a/c/x.mp3", ".hidden/y.wav", "a/._1.ogg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert ids(tmp_path) == ["a/1.ogg", "a/2.FLAC", "a/c/x.mp3", "b.wav"]
    found = sources.find(tmp_path)
    assert all((found.root / item.path).is_file() for item in found.entries)


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.wav").touch()
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert ids(tmp_path) == ["data/a.wav", "linked/a.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_written_out(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.wav", "wb"):
        pass
    (item,) = sources.find(tmp_path).entries
    assert item.id == item.name == "\\xff.wav"
    assert (tmp_path / item.path).is_file()


def test_members_of_a_tar_read_as_the_files_they_were(tmp_path, recordings):
    tar = tar_of(recordings, tmp_path / "shard.tar")
    source = sources.find(tar)
    root, found = source.root, list(source.entries)
    assert [item.id for item in found] == ids(recordings)
    assert found[3].name == f"shard.tar:{found[3].member}"
    for item in found:
        if int(Path(item.id).stem) < 2:  # which are broken
            with pytest.raises(bc.CorruptFile, match=f"shard.tar:{item.id}"):
                item.open(root)
            continue
        with item.open(root) as member, AudioReader(recordings / item.id) as file:
            assert (member.sample_rate, member.channels, member.num_samples) == (
                file.sample_rate,
                file.channels,
                file.num_samples,
            )


def test_tars_in_a_folder_are_looked_into(tmp_path, recordings):
    tar_of(recordings, tmp_path / "one.tar")
    soundfile.write(tmp_path / "two.wav", sound(0.2, 8000, 1), 8000)
    assert ids(tmp_path) == [*(f"one.tar/{name}" for name in ids(recordings)), "two.wav"]


ROWS = [
    {"path": "a.wav"},
    {"path": "a.wav", "start": 1.5, "end": 2.0},
    {"path": "a.wav", "start": 1.5, "duration": 0.25, "id": "part"},
    {"path": "b.wav", "duration": 7},
]
EXPECTED = [
    AudioItem("a.wav", "a.wav"),
    AudioItem("a.wav#1.5-2", "a.wav", start=1.5, end=2.0, lasts=0.5),
    AudioItem("part", "a.wav", start=1.5, end=1.75, lasts=0.25),
    AudioItem("b.wav", "b.wav", lasts=7.0),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_lists_give_files_and_parts_of_them(tmp_path, suffix):
    path = tmp_path / f"list{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "start", "end", "duration", "id"])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import pyarrow as pa
        import pyarrow.parquet

        pa.parquet.write_table(
            pa.Table.from_pylist([{**dict.fromkeys(("start", "end", "duration", "id")), **row} for row in ROWS]), path
        )
    found = sources.find(path)
    assert found.root == tmp_path
    assert list(found.entries) == EXPECTED


def test_the_column_may_be_called_as_others_call_it(tmp_path):
    (tmp_path / "nemo.json").write_text('{"audio_filepath": "x/y.wav", "duration": 3.5, "text": "hello"}\n')
    assert list(sources.find(tmp_path / "nemo.json").entries) == [AudioItem("x/y.wav", "x/y.wav", lasts=3.5)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"text": "hello"}\n', "has no path column.*among 'text'"),
        ("a.csv", "text,speaker\nhello,3\n", "has no path column"),
        ("a.jsonl", "not JSON", "cannot be read as a list"),
        ("a.json", "[nothing", "cannot be read as a list"),
        ("a.jsonl", "", "is empty"),
        ("a.csv", "path,path\na.wav,b.wav\n", "path occur twice"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.tar", "no tar", "cannot be read as a tar"),
        ("a.doc", "a.wav", "or a list"),
    ],
)
def test_bad_inputs_are_refused_with_the_place(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(bc.CodecError, match=says):
        list(sources.find(tmp_path / name).entries)


def test_nothing_is_an_error(tmp_path):
    with pytest.raises(bc.InvalidInput, match="has no audio"):
        list(sources.find(tmp_path).entries)
    with pytest.raises(bc.InvalidInput, match="is not a file or a folder"):
        sources.find(tmp_path / "missing")


def test_a_part_of_a_file_is_those_samples(tmp_path):
    audio = sound(2.0, 8000, 2)
    soundfile.write(tmp_path / "a.wav", audio, 8000, subtype="FLOAT")
    with AudioItem("", "a.wav", start=0.5, end=1.25).open(tmp_path) as reader:
        assert reader.num_samples == 6000
        assert np.array_equal(np.concatenate(list(reader.blocks(999)), axis=1), audio[4000:10_000].T)
    with AudioItem("", "a.wav", start=1.5).open(tmp_path) as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks()), axis=1), audio[12_000:].T)
    with pytest.raises(bc.InvalidInput, match="has no audio from 3"):
        AudioItem("", "a.wav", start=3.0).open(tmp_path)
