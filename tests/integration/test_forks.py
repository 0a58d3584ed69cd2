"""A forked child goes on with its parent's codecs: `gunicorn --preload`, `DataLoader`, `multiprocessing` before Python 3.14."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from blazen_codec_core import files, forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("codec", "numba"),
    [
        pytest.param("snac_tiny", True, id="snac"),
        pytest.param("encodec_tiny", True, id="encodec", marks=pytest.mark.slow),
        pytest.param("dac_tiny", False, id="plain", marks=pytest.mark.slow),
    ],
)
def test_forked_children_work(codec, numba):
    """With as many threads in the parent as it likes, and with locks that others hold."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        **({} if numba else {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}),
    }
    command = [sys.executable, str(HERE / "forked.py"), codec, "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.pop("threads") == 2
    assert len(found) == 13
    assert set(found.values()) == {"same"}, (found, run.stderr)


IMPORTS = """
import asyncio, sys
import blazen_codec_core as bc
from blazen_codec_core import forks
from blazen_codec_core.conformance.signals import voice

found = {}

def note(event, args):
    if event == "import" and not forks.are_held_off() and args[0] not in sys.modules and not sys.is_finalizing():
        found.setdefault(args[0], [frame.f_code.co_filename + f":{frame.f_lineno}" for frame in frames()])

def frames():
    frame = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back

rate = 24_000
pcm = voice(0.3, rate)
sys.addaudithook(note)
codec = bc.load(sys.argv[1], device="cpu")
tokens = codec.encode(pcm, rate)
codec.decode(tokens)
codec.decode_batch(codec.encode_batch([pcm, pcm], rate))
session, player = codec.encoder_session(), codec.decoder_session()
player.push(session.push(pcm))
player.push(session.finish())
player.finish()
asyncio.run(codec.adecode(asyncio.run(codec.aencode(pcm, rate))))
tokens.save(sys.argv[2])
assert bc.CodecTokens.open(sys.argv[2]) == bc.CodecTokens.from_bytes(tokens.to_bytes()) == tokens
codec.unload()
codec.load()
for name, where in found.items():
    print(name, *where)
"""


@pytest.mark.parametrize(
    "name", ["snac_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("encodec_tiny", "dac_tiny"))]
)
def test_nothing_is_imported_that_forks_do_not_wait_for(name, tmp_path):
    """A child can never import what another thread was importing when it was forked."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS, name, str(tmp_path / "a.tokens")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""


def test_a_fork_waits_for_a_step_and_the_next_step_for_the_fork():
    """However many threads work, so that no library is forked inside."""
    step, go_on, events = threading.Event(), threading.Event(), []

    def first() -> None:
        with forks.held_off():
            step.set()
            go_on.wait()
            events.append("first")

    def second() -> None:
        with forks.held_off():
            events.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    step.wait()
    threading.Timer(0.5, lambda: (threads[1].start(), time.sleep(0.5), go_on.set())).start()
    with forks.held_off():  # what the forking thread does itself is not waited for
        child = os.fork()
        if not child:
            os._exit(0 if events == ["first"] and forks.are_held_off() else 1)
        events.append("forked")
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads:
        thread.join()
    assert events == ["first", "forked", "second"]
    assert not forks.are_held_off()


def test_a_child_that_ends_leaves_the_unfinished_files_of_its_parent(tmp_path):
    with files.replacing(tmp_path / "a.txt") as temporary:
        child = os.fork()
        if not child:
            files.discard_unfinished()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert temporary.exists()
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
