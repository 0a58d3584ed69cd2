"""Commands between pipes, and what is said of audio that is none."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from tests.helpers import damaged_files

COMMAND = [sys.executable, "-m", "blazen_codec_core.cli.main"]


def piped(*arguments: object, given: bytes) -> bytes:
    """What a command writes to standard output."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.slow
def test_between_pipes_it_is_the_same(run, tmp_path):
    recording = damaged_files.with_sizes(damaged_files.MADE["wav"](), 2**32 - 1, 2**32 - 1)  # as FFmpeg writes it to a pipe
    (tmp_path / "in.wav").write_bytes(recording)
    assert run("encode", "in.wav", "-c", "snac_tiny", "-o", "in.tokens")[0] == 0
    assert run("decode", "in.tokens", "-o", "back.wav")[0] == 0
    tokens = piped("encode", "-", "-c", "snac_tiny", "-o", "-", given=recording)
    assert tokens == (tmp_path / "in.tokens").read_bytes()
    assert piped("decode", "-", "-o", "-", given=tokens) == (tmp_path / "back.wav").read_bytes()
    assert soundfile.info(io.BytesIO((tmp_path / "back.wav").read_bytes())).frames == 2 * damaged_files.RATE


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_disk_that_is_full_is_said_in_one_line(run, tmp_path, command):
    (tmp_path / "in.wav").write_bytes(damaged_files.MADE["wav"]())
    assert run("encode", "in.wav", "-c", "snac_tiny", "-o", "in.tokens")[0] == 0
    arguments = ["in.wav", "-c", "snac_tiny"] if command == "encode" else ["in.tokens"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, command, *arguments, "-o", "-", "-q"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr.decode() == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_what_is_wrong_with_standard_input_is_said_of_standard_input(command):
    arguments = ["-c", "snac_tiny"] if command == "encode" else []
    done = subprocess.run(
        [*COMMAND, command, "-", *arguments, "-o", "-", "-q"], input=b"nothing of use", capture_output=True, check=False
    )
    assert done.returncode == 5
    assert done.stderr.startswith(b"error: standard input ")
    assert b"blazen-codec-" not in done.stderr


def test_json_does_not_go_where_the_result_goes(run, tmp_path):
    (tmp_path / "in.wav").write_bytes(damaged_files.MADE["wav"]())
    assert run("encode", "in.wav", "-c", "snac_tiny", "-o", "-", "--json")[0] == 2
    assert run("decode", "in.tokens", "-o", "-", "--json")[0] == 2
    assert not os.path.exists(tmp_path / "-")


@pytest.fixture
def of_44_100_hz(run, tmp_path):
    soundfile.write(tmp_path / "in.wav", damaged_files.tone(), 44_100)
    assert run("encode", "in.wav", "-c", "snac_tiny", "-o", "in.tokens")[0] == 0


@pytest.mark.parametrize("name", ["out.opus", "out.docx", "out.raw"])
def test_a_suffix_that_cannot_hold_the_audio_is_refused_before_the_work(run, tmp_path, of_44_100_hz, monkeypatch, name):
    def no_work(*_):
        raise AssertionError("it is loaded")

    monkeypatch.setattr(bc.DynCodecProvider, "load", no_work)
    monkeypatch.setattr(bc.DynCodecProvider, "decoder_session", no_work)
    code, _, err = run("decode", "in.tokens", "-o", name)
    assert code == 2
    assert name.partition(".")[2] in err
    assert not (tmp_path / name).exists()


def test_files_that_are_cut(run, tmp_path):
    whole = damaged_files.MADE["flac"]()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    code, _, err = run("encode", "cut.flac", "-c", "snac_tiny", "-o", "a.tokens")
    assert code == 5
    assert "its header states 32000 samples (2.00 s)" in err
    assert os.listdir(tmp_path) == ["cut.flac"]
    code, _, err = run("encode", "cut.flac", "-c", "snac_tiny", "-o", "a.tokens", "--truncated", "keep")
    assert code == 0
    assert "cut.flac: it is incomplete or damaged: its header states 32000 samples" in err
    assert 0.5 < bc.CodecTokens.open(tmp_path / "a.tokens").seconds < 1.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pcm: pcm.__setitem__(8000, np.nan), "in.wav has NaN at 0.500 s"),
        (lambda pcm: pcm.__setitem__(8000, -np.inf), "in.wav has infinity at 0.500 s"),
        (lambda pcm: pcm.__setitem__(8000, 8000), "in.wav has a sample of 8000 at 0.500 s"),
        (lambda pcm: pcm.__imul__(127), None),
    ],
)
def test_samples_that_are_none_name_the_file_and_the_second(run, tmp_path, change, says):
    pcm = damaged_files.tone()
    change(pcm)
    soundfile.write(tmp_path / "in.wav", pcm, damaged_files.RATE, subtype="FLOAT")
    code, _, err = run("encode", "in.wav", "-c", "snac_tiny", "-o", "a.tokens")
    if says is None:
        assert code == 0
        assert "in.wav: it reaches" in err
        assert "where 1 is full scale" in err
    else:
        assert code == 2
        assert says in err
