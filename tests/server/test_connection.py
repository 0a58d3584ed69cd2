"""`blazen-codec serve`, spoken to as its page does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import blazen_codec_core as bc
from blazen_codec_core.evaluation.evaluate import Scorer
from blazen_codec_core.installation import install_command
from tests.helpers.live_server import CHUNK, PATIENCE, Answers, seconds_finished, serving, visit, wav


@pytest.fixture(scope="module")
def server():
    with serving() as where:
        yield where


def test_the_page_is_whole(server):
    with urllib.request.urlopen(f"http://{server}/") as response:
        text = response.read().decode()
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"
    assert "snac_tiny" in text
    assert "dac_44khz" not in text  # which is not offered


def test_a_recording_comes_back_as_it_is_made(server, codecs):
    content = wav(4.0)
    answers = visit(server, content, ("encodec_tiny@1.5", "snac_tiny"), name="../../deep/in.wav")
    assert answers.order[-1] == "done", answers.said[-1]
    recording = answers.of("begun")["recording"]
    assert recording["name"] == "in.wav"
    assert [version["name"] for version in recording["versions"]] == ["original", "encodec_tiny@1.5", "snac_tiny"]
    assert answers.order.index("audio 1") < len(answers.order) - 1 - answers.order[::-1].index("audio 0")
    assert answers.order.index("ended") < answers.order.index("shown") < answers.order.index("tokens 1")
    pcm, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_array_equal(answers.pcm(0)[0], pcm)
    tokens = bc.load("snac_tiny", device="cpu").encode(pcm, rate)
    assert bc.CodecTokens.from_bytes(answers.tokens[2]) == tokens
    np.testing.assert_allclose(answers.pcm(2), bc.load("snac_tiny", device="cpu").decode(tokens), atol=1e-5)
    shown = answers.of("shown")["recording"]
    assert "audio" not in shown["versions"][1]
    assert shown["versions"][1]["numbers"]["kbps"] == pytest.approx(1.5, rel=0.02)


def test_stereo_at_another_rate(server):
    answers = visit(server, wav(1.0, 44_100, 2), ("dac_tiny",))
    assert answers.order[-1] == "done"
    assert answers.pcm(1, 2).shape == (2, 44_100)
    mixed = visit(server, wav(1.0, 44_100, 2), ("dac_tiny",), mono=True)
    assert mixed.pcm(1).shape == (1, 44_100)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"content": b"dear diary, " * 99, "name": "note.wav"}, "note.wav cannot be read as audio: Format not recognised."),
        ({"content": wav(0.02)}, "at least 0.1 s"),
        ({"content": b"x", "size": 300_000_000}, "exceeds the limit of 100 MB"),
        ({"content": wav(0.5), "size": 1000}, "larger than the stated 1000 bytes"),
        ({"content": wav(0.5), "systems": ["dac_44khz"]}, "dac_44khz is not offered here"),
        ({"content": wav(0.5), "systems": ["snac_tiny@9"]}, "2.75 kbps"),
        ({"content": wav(0.5), "systems": ["snac_tiny"] * 2}, "twice"),
        ({"content": wav(0.5), "systems": []}, "systems"),
        ({"content": wav(0.5), "systems": [f"opus@{kbps}" for kbps in range(6, 20)]}, "at most 8"),
        ({"content": b"x", "size": -1}, "size"),
        ({"content": wav(0.5)[:12_000]}, "incomplete"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:12],
)
def test_what_cannot_be_done_is_said(server, asked, says):
    answers = visit(server, **asked)
    assert answers.order[-1] == "error"
    assert says in answers.said[-1]["message"]


def test_more_audio_than_is_taken_is_refused():
    with serving(seconds=1.0) as where:
        answers = visit(where, wav(2.0))
        assert answers.said[-1]["message"] == "in.wav exceeds the limit of 1 s of audio"


def test_a_file_may_not_trickle_in():
    with serving(patience=0.4) as where, connect(f"ws://{where}/compare") as socket:
        socket.send(json.dumps({"systems": ["snac_tiny"], "name": "a.wav", "size": 1000}))
        assert json.loads(socket.recv(PATIENCE)) == {"type": "ready"}
        for _ in range(900):  # of the thousand bytes that it waits for
            time.sleep(0.1)
            try:
                socket.send(b"x")
            except ConnectionClosed:
                break
        else:
            pytest.fail("it went on being taken")
        assert "timed out" in json.loads(socket.recv(PATIENCE))["message"]


@pytest.mark.parametrize("first", ["no json", "[]", b"\0\1", json.dumps({"systems": ["snac_tiny"], "name": "a", "size": 1e400})])
def test_nonsense_is_answered(server, first):
    with connect(f"ws://{server}/compare") as socket:
        socket.send(first)
        answer = json.loads(socket.recv(PATIENCE))
        assert answer["type"] == "error"
        with pytest.raises(ConnectionClosed):
            socket.recv(PATIENCE)


def test_who_says_nothing_is_not_waited_for():
    with serving(patience=0.3) as where, connect(f"ws://{where}/compare") as socket:
        assert "timed out" in json.loads(socket.recv(PATIENCE))["message"]
        answers = visit(where, b"", size=100)  # and never sends it
        assert "timed out" in answers.said[-1]["message"]


def test_other_pages_cannot_use_it(server):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{server}/compare", origin="https://example.com").__enter__()
    assert refused.value.response.status_code == 403
    with connect(f"ws://{server}/compare", origin=f"http://{server}"):
        pass


def test_other_names_for_this_machine_are_refused(server):
    request = urllib.request.Request(f"http://{server}/", headers={"Host": "rebound.example.com"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_twenty_at_once_get_a_result_or_a_clear_answer():
    content, results = wav(1.0), []
    with serving(at_once=2, waiting=8) as where:
        visit(where, content)  # so that the model is loaded
        threads = [threading.Thread(target=lambda: results.append(visit(where, content))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert len(results) == 20
    done = [answers for answers in results if answers.order[-1] == "done"]
    away = [answers for answers in results if answers.order[-1] == "error"]
    assert len(done) >= 10
    assert len(done) + len(away) == 20
    assert all("Try again later" in answers.said[-1]["message"] for answers in away)
    assert any(answers.order[0] == "waiting" for answers in done)
    assert len({answers.tokens[1] for answers in done}) == 1


def test_who_goes_away_stops_the_work_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content, finished = wav(60.0), seconds_finished(monkeypatch)
    with serving(at_once=1) as where:
        visit(where, wav(0.5))
        for _ in range(3):
            with connect(f"ws://{where}/compare", max_size=None) as socket:
                socket.send(json.dumps({"systems": ["dac_tiny"], "name": "a.wav", "size": len(content)}))
                answers = Answers()
                while answers.hear(socket.recv(PATIENCE)) != "ready":
                    pass
                for at in range(0, len(content), CHUNK):
                    socket.send(content[at : at + CHUNK])
                while answers.hear(socket.recv(PATIENCE)) != "audio 1":
                    pass
        assert visit(where, wav(0.5)).order[-1] == "done"
    assert finished == [0.5, 0.5]  # and none of the three minutes
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_said_and_written_down(monkeypatch, caplog):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("blazen_codec_core.comparison.serialize.page_data", broken)
    with serving() as where:
        answers = visit(where, wav(0.5))
        assert answers.said[-1] == {"type": "error", "message": "internal error; see the server's log"}
    assert "ZeroDivisionError" in caplog.text


def test_measures_are_those_of_the_judge():
    with serving(judge=Scorer(["stoi"])) as where:
        numbers = visit(where, wav(2.0)).of("shown")["recording"]["versions"][1]["numbers"]
    assert numbers["stoi"] is not None
    assert numbers["pesq"] is None


@pytest.mark.slow
def test_the_command_listens_until_it_is_told_to_stop(tmp_path):
    program = [sys.executable, "-m", "blazen_codec_core.cli.main", "serve", "-c", "snac_tiny", "--no-pesq", "--port"]
    (tmp_path / "browser").write_text(f"#!/bin/sh\necho $1 > {tmp_path}/opened\n")
    (tmp_path / "browser").chmod(0o755)
    environment = {**os.environ, "BROWSER": str(tmp_path / "browser")}
    process = subprocess.Popen(
        [*program, "0", "--open"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening at http://127.0.0.1:")
        where = line.split("/")[2]
        assert visit(where, wav(0.5)).order[-1] == "done"
        assert (tmp_path / "opened").read_text() == f"http://{where}/\n"
        taken = subprocess.run([*program, where.split(":")[1]], capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert taken.returncode == 2
        assert "--port 0" in taken.stderr
    finally:
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert not said


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "websockets"])
def test_a_missing_package_is_named(run, monkeypatch, package):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else there(name, *rest))
    code, _, err = run("serve", "--port", "0")
    assert code == 6
    assert f"serve needs {package}: {install_command('', 'blazen-codec-core', 'serve')}" in err


def test_an_address_that_is_not_here_is_said(run):
    code, _, err = run("serve", "--host", "192.0.2.1", "--port", "0")
    assert code == 2
    assert "cannot listen at 192.0.2.1 port 0" in err
