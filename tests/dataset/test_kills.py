"""Runs that are killed or interrupted: nothing is lost, nothing is done twice, nothing half-written stays."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards
from tests.helpers.corpora import corpus

pytestmark = pytest.mark.slow
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}
"""How a run ends that is sent a signal."""
PATIENCE = 300
"""Seconds until a process that should have ended is taken for one that hangs."""


def command(source: Path, out: Path, workers: int) -> list[str]:
    options = ["-c", "snac_tiny", "-o", str(out), "--shard-minutes", "0.05", "--workers", str(workers), "--device", "cpu", "-q"]
    return [sys.executable, "-m", "blazen_codec_core.cli.main", "tokenize", str(source), *options]


def lines(out: Path) -> list[bytes]:
    journal = out / ".run" / "journal.jsonl"
    return [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if journal.exists() else []


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.files(out)}


@pytest.fixture(scope="module")
def kills(request) -> int:
    return request.config.getoption("--kills")


@pytest.fixture(scope="module")
def source(tmp_path_factory, kills) -> Path:
    return corpus(tmp_path_factory.mktemp("many"), max(300, 20 * kills), broken=5)


@pytest.mark.parametrize("with_signal", ENDS, ids=["killed", "interrupted"])
def test_kills_and_a_resume_give_the_dataset_of_a_run_without(source, tmp_path, kills, with_signal):
    out = tmp_path / "out"
    bc.tokenize_dataset(source, "snac_tiny", tmp_path / "whole", shard_minutes=0.05, executor=bc.Executor(workers=1))
    whole = contents(tmp_path / "whole")
    assert len(whole) > 2 * kills
    chance = random.Random(0)
    for kill in range(kills):
        enough = len(lines(out)) + chance.randint(1, 2)
        run = subprocess.Popen(command(source, out, workers=1 + kill % 2))
        while len(lines(out)) < enough and run.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))  # about what a shard takes
        children = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
        run.send_signal(with_signal)
        assert run.wait(PATIENCE) == ENDS[with_signal], "the corpus is too small for so many kills"
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert not alive, "workers outlive the run"
        for name, data in contents(out).items():
            assert data == whole[name]  # whole, whenever it died
    done = lines(out)
    assert subprocess.run(command(source, out, workers=2), check=False).returncode == 0
    assert contents(out) == whole
    assert lines(out)[: len(done)] == done
    assert sorted(json.loads(line)["shard"] for line in lines(out)) == list(range(len(whole)))  # none twice
    assert {path.name for path in out.iterdir()} == {".run", *whole}
    assert {path.name for path in (out / ".run").iterdir()} == {
        "dataset.json", "failures.jsonl", "items.jsonl", "journal.jsonl", "lock", "made-by", "plan.json"
    }  # fmt: skip
    assert len((out / ".run" / "failures.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(("with_signal", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_takes_its_workers_along(source, tmp_path, with_signal, code):
    out = tmp_path / "out"
    run = subprocess.Popen(command(source, out, workers=2), stderr=subprocess.PIPE, text=True)
    while not lines(out):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(with_signal)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == code
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert not alive
    assert "Traceback" not in said
    assert subprocess.run(command(source, out, workers=1), check=False).returncode == 0
