"""What is told to stop stops: whatever it inherited, whatever it is doing, and nothing half-written stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.cli.main import main

BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
PATIENCE = 300
"""Seconds until a command that should have ended is taken for one that hangs."""
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python as a shell runs what it leaves in its background."""
RIGGED = """
import hashlib, os, signal, sys, threading, time, weakref
from blazen_codec_core import files
from blazen_codec_core.cli import interrupts, main
def begun():
    print("begun", flush=True)
class Late:
    def __del__(self):
        begun()
        time.sleep(600)
def in_compiled_code():
    begun()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
def in_a_finalizer():
    late = Late()
    del late
    time.sleep(600)
def where_exceptions_are_swallowed():
    class SignalLengths:
        pass
    ends = SignalLengths()
    def told(_):
        begun()
        time.sleep(3600)
    reference = weakref.ref(ends, told)
    del ends
    for _ in range(3600_000):
        time.sleep(0.001)
def where_another_error_takes_its_place():
    begun()
    try:
        time.sleep(600)
    except BaseException:
        raise ValueError("as libraries in C have it")
def with_a_thread_that_goes_on():
    threading.Thread(target=time.sleep, args=(600,)).start()
    begun()
    time.sleep(600)
def _run(arguments):
    with files.replacing("a.bin"):
        globals()[sys.argv[1]]()
main._run = _run
interrupts.GRACE_SECONDS = float(sys.argv[2])
main.main()
"""


@contextmanager
def running(*arguments: str, **options) -> Iterator[subprocess.Popen]:
    """Python with such arguments, which is dead afterwards."""
    process = subprocess.Popen([sys.executable, *arguments], text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen, stream, text: str) -> None:
    """Until a process has written a line that ends so."""
    for line in stream:
        if line.rstrip().endswith(text):
            return
    raise AssertionError(f"it ended with {process.wait(PATIENCE)} and never said {text!r}")


def wait_for_second_file(process: subprocess.Popen, folder) -> None:
    while len(os.listdir(folder)) < 2:
        with pytest.raises(subprocess.TimeoutExpired):  # it has not ended
            process.wait(0.01)


@pytest.fixture
def twenty_minutes(tmp_path):
    """Tokens that take longer to decode than a test waits."""
    spec = next(spec for spec in bc.list_codecs() if spec.name == "snac_tiny")
    frames = 100 * 60 * 20
    codes = [np.zeros(frames // stride, int) for stride in spec.strides]
    bc.CodecTokens.from_codes(spec, codes).save(tmp_path / "a.tokens")
    return "a.tokens"


@pytest.mark.parametrize("ignored", [False, True], ids=["", "ignored before"])
@pytest.mark.parametrize(("how", "code"), BOTH)
def test_a_command_that_is_stopped_leaves_nothing(tmp_path, twenty_minutes, how, code, ignored):
    command = ["-m", "blazen_codec_core.cli.main", "decode", twenty_minutes, "-o", "a.wav"]
    with running(*(["-c", IGNORING] if ignored else []), *command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for_second_file(process, tmp_path)
        process.send_signal(how)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == [twenty_minutes]


@pytest.mark.parametrize("module", ["torch._C", "torch.nn", "numba"])
def test_a_command_is_stopped_while_modules_load(tmp_path, twenty_minutes, module):
    if module == "numba":
        pytest.importorskip("numba", reason="numba is not installed: nothing loads it")
    command = ["-X", "importtime", "-m", "blazen_codec_core.cli.main", "decode", twenty_minutes, "-o", "a.wav"]
    with running(*command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for(process, process.stderr, f" {module}")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert os.listdir(tmp_path) == [twenty_minutes]


@pytest.mark.parametrize("doing", ["in_compiled_code", "in_a_finalizer", "with_a_thread_that_goes_on"])
@pytest.mark.parametrize(("how", "code"), BOTH)
def test_what_does_not_unwind_is_ended(tmp_path, doing, how, code):
    with running("-c", RIGGED, doing, "0.2", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        wait_for(process, process.stdout, "begun")
        process.send_signal(how)
        assert process.wait(PATIENCE) == code
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("how", "code"), BOTH)
def test_an_exception_that_is_swallowed_is_raised_anew(tmp_path, how, code):
    with running(
        "-c", RIGGED, "where_exceptions_are_swallowed", "3600", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(process, process.stdout, "begun")
        process.send_signal(how)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("how", "code"), BOTH)
def test_a_command_that_was_told_to_end_says_so_whatever_became_of_the_exception(tmp_path, how, code):
    rigged = ("-c", RIGGED, "where_another_error_takes_its_place", "3600")
    with running(*rigged, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(process, process.stdout, "begun")
        process.send_signal(how)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == []


def test_who_asks_twice_need_not_wait(tmp_path):
    with running("-c", RIGGED, "in_compiled_code", "3600", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        wait_for(process, process.stdout, "begun")
        for _ in range(PATIENCE):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(1)
                break
            except subprocess.TimeoutExpired:
                continue
        assert process.poll() == 130
    assert os.listdir(tmp_path) == []


def test_a_command_run_inside_a_program_leaves_its_handlers_alone(monkeypatch):
    before = [signal.getsignal(number) for number, _ in BOTH]
    with pytest.raises(SystemExit):
        main(["list"])
    assert [signal.getsignal(number) for number, _ in BOTH] == before
    assert signal.set_wakeup_fd(-1) == -1
