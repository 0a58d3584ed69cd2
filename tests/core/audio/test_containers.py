"""What a file is, its content says; what libsndfile cannot read, PyAV does."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core import audio
from tests.helpers import damaged_files
from tests.helpers.damaged_files import RATE, tone

BY_AV = [name for name in damaged_files.THROUGH_FFMPEG if name not in {"mp3_without_header", "flac_of_ffmpeg"}]


@pytest.fixture(scope="module")
def av():
    return pytest.importorskip("av", reason="the extra `av` is not installed")


@pytest.mark.parametrize("name", damaged_files.MADE)
def test_suffixes_are_not_believed(tmp_path, name):
    (tmp_path / "a.txt").write_bytes(damaged_files.MADE[name]())
    assert audio.read(tmp_path / "a.txt")[0].shape == (1, 2 * RATE)


@pytest.mark.parametrize("format", ["NIST", "VOC", "AVR", "HTK", "IRCAM", "MAT5", "PAF", "PVF", "SVX", "WAVEX"])
def test_what_else_libsndfile_reads(format):
    data = damaged_files.by_libsndfile(format)()
    with audio.AudioReader("a", content=io.BytesIO(data)) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 2 * RATE


@pytest.mark.parametrize("name", BY_AV)
def test_what_pyav_reads(av, name):
    data = damaged_files.THROUGH_FFMPEG[name]()
    with audio.AudioReader("a", content=io.BytesIO(data)) as reader:
        pcm = np.concatenate(list(reader.blocks(1000)), axis=1)
        rate = reader.sample_rate
    assert pcm.dtype == np.float32
    assert pcm.shape[1] / rate == pytest.approx(damaged_files.seconds_by_ffmpeg(data))
    assert pcm.shape[1] / rate == pytest.approx(2.0, abs=0.15)
    assert np.abs(pcm).max() == pytest.approx(np.abs(tone()).max(), abs=0.15)


@pytest.mark.parametrize("name", BY_AV)
def test_parts_of_what_pyav_reads(av, name):
    data = damaged_files.THROUGH_FFMPEG[name]()
    with audio.AudioReader("a", content=io.BytesIO(data)) as reader:
        whole = np.concatenate(list(reader.blocks()), axis=1)
    with audio.AudioReader("a", content=io.BytesIO(data), start=0.5, end=1.5) as reader:
        part = np.concatenate(list(reader.blocks()), axis=1)
        rate = reader.sample_rate
    assert np.array_equal(part, whole[:, rate // 2 : rate * 3 // 2])


def test_half_an_mp4_is_refused(av):
    whole = damaged_files.THROUGH_FFMPEG["mp4"](seconds=20.0)
    with pytest.raises(bc.CorruptFile), audio.AudioReader("a", content=io.BytesIO(whole[: len(whole) // 2])) as reader:
        list(reader.blocks())


def test_without_the_extra_it_is_named(av, monkeypatch):
    data = damaged_files.THROUGH_FFMPEG["m4a"]()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(bc.EngineNotAvailable, match=r"a\.m4a is MP4, .* pip install '\S*\[av\]'"):
        audio.AudioReader("a.m4a", content=io.BytesIO(data))


def test_what_libsndfile_reads_does_not_depend_on_the_extra(av, monkeypatch):
    data = damaged_files.MADE["mp3"]()
    with audio.AudioReader("a", content=io.BytesIO(data)) as reader:
        with_it = np.concatenate(list(reader.blocks()), axis=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with audio.AudioReader("a", content=io.BytesIO(data)) as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks()), axis=1), with_it)


def test_a_file_whose_name_is_no_utf8(tmp_path):
    path = tmp_path / "caf\udce9.wav"
    try:
        path.write_bytes(damaged_files.MADE["wav"]())
    except OSError:
        pytest.skip("this file system has no such names")
    assert audio.read(path)[0].shape == (1, 2 * RATE)


@pytest.mark.parametrize("head", [b"", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"%PDF-1.7", b"\0" * 1000, b"text\n" * 99])
def test_what_is_no_audio(head):
    with pytest.raises(bc.CorruptFile, match="cannot be read as audio"):
        audio.AudioReader("a.wav", content=io.BytesIO(head))


def test_joined_streams_that_differ_are_refused():
    file = io.BytesIO()
    soundfile.write(file, tone(channels=2), RATE, format="OGG", subtype="VORBIS")
    with (
        pytest.raises(bc.CorruptFile, match="which is not supported"),
        audio.AudioReader("a", content=io.BytesIO(damaged_files.MADE["ogg"]() + file.getvalue())) as reader,
    ):
        list(reader.blocks())


def test_which_files_are_audio(tmp_path, monkeypatch, av):
    (tmp_path / "named.wav").write_bytes(b"")
    (tmp_path / "bare").write_bytes(damaged_files.MADE["flac"]())
    (tmp_path / "tagged").write_bytes(damaged_files.id3_tag(150_000) + damaged_files.MADE["mp3"]())
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "talk.m4a").write_bytes(damaged_files.THROUGH_FFMPEG["m4a"]())
    found = {path.name for path in tmp_path.iterdir() if audio.is_audio(path)}
    assert found == {"named.wav", "bare", "tagged", "talk.m4a"}
    monkeypatch.setitem(sys.modules, "av", None)
    assert not audio.is_audio(tmp_path / "talk.m4a")
