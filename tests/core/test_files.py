"""Files appear whole or not at all, with the mode that the process gives its files."""

from __future__ import annotations

import os
import stat
import threading

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.files import replacing


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_written_files_have_the_mode_of_any_other(tmp_path, umask):
    codec = bc.load("snac_tiny", device="cpu")
    codec.encode(voice(0.1, 24_000), 24_000).save(tmp_path / "a.tokens")
    bc.write_audio(tmp_path / "a.wav", np.zeros(100, np.float32), 24_000)
    bc.write_audio(tmp_path / "a.flac", np.zeros(100, np.float32), 24_000)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_umask_of_the_process_is_left_alone(tmp_path, monkeypatch):
    """Setting it, if only to read it, would give the files of other threads any mode in that moment."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was set"))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_many_threads_replace_one_file(tmp_path):
    path = tmp_path / "a.txt"

    def write(number: int) -> None:
        for _ in range(20):
            with replacing(path) as temporary:
                temporary.write_text(str(number) * 5000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            text = path.read_text()
            seen.add((len(text), len(set(text))))
    assert seen <= {(5000, 1)}
    assert list(tmp_path.iterdir()) == [path]


def test_what_stands_there_under_the_name_of_a_temporary_file_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr("os.urandom", bytes)
    taken = tmp_path / ".a.txt.00000000.txt"
    taken.write_text("of somebody else")
    with pytest.raises(bc.InvalidInput, match="cannot be written"), replacing(tmp_path / "a.txt"):
        pass
    assert taken.read_text() == "of somebody else"
