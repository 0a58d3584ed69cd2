"""A forked child goes on with its parent's codecs: `gunicorn --preload`, `DataLoader`, `multiprocessing` before Python 3.14."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blazen_codec_core import files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("codec", "numba"), [("snac_tiny", True), ("encodec_tiny", True), ("dac_tiny", False)], ids=["snac", "encodec", "plain"]
)
def test_forked_children_work(codec, numba):
    """With as many threads in the parent as it likes, and with locks that others hold."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        **({} if numba else {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}),
    }
    command = [sys.executable, str(HERE / "forked.py"), codec, "20"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.pop("threads") == 2
    assert len(found) == 13
    assert set(found.values()) == {"same"}, (found, run.stderr)


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
