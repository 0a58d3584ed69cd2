"""Many threads, many tasks, other processes, and processes that are killed. The figures are printed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.lifecycle import there_and_back
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.provider import WORKERS

HERE = Path(__file__).parent


def report(capsys, script: str, *arguments: str, timeout: float) -> dict:
    """Runs a script of this folder; what it prints is shown."""
    path = os.pathsep.join(filter(None, (str(HERE.parent.parent), os.environ.get("PYTHONPATH"))))  # for `tests.helpers`
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, str(HERE / script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    with capsys.disabled():
        print(f"\n{script}: {run.stdout.strip()}")
    return json.loads(run.stdout)


@pytest.mark.slow
def test_32_threads_tasks_forks_and_interrupts_on_one_handle(capsys, request):
    seconds = request.config.getoption("--soak")
    found = report(capsys, "soak.py", "32", str(seconds), timeout=seconds + 600)
    assert found["errors"] == []
    assert found["stuck"] == found.get("wrong", 0) == 0
    assert min(found[kind] for kind in ("encoded", "decoded", "in_batches", "in_pieces", "refused")) > 20
    assert min(found[kind] for kind in ("unloaded", "cancelled", "awaited", "forked", "interrupted")) > 10
    before, after = found["held"]
    resident = found["rss"]
    if before is None:
        assert max(resident[-4:]) - max(resident[:4]) < 96
    else:
        assert after - before < 8
    assert max(resident) < 1_500  # with what was freed in 38 heaps, each with its ups and downs


@pytest.mark.slow
def test_200_streams_of_a_pool_that_come_go_fail_and_stall(capsys, request):
    seconds = request.config.getoption("--soak")
    found = report(capsys, "pool_soak.py", "200", str(seconds), timeout=seconds + 900)
    done = found["done"]
    assert done["most open"] == 200
    ends = ("finished", "closed", "broken", "stalled", "refused", "task whole", "task left", "task held")
    assert min(done[end] for end in ends) > 5
    assert found["growth"] < 96  # MiB, between the second and the last third


@pytest.mark.slow
def test_killed_while_it_encodes(capsys, tmp_path):
    found = report(capsys, "kills.py", str(tmp_path), "20", timeout=1800)  # beside those at every step
    assert found["kills"] >= 40
    assert set(found["found"]) <= {"old", "new", "none"}
    assert found["found"]["old"] > 10
    assert found["found"]["none"] > 5
    assert found["found"]["new"] >= 3


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("blazen-codec snac:snac_tiny")}


async def test_200_tasks_share_a_few_threads():
    of_others = workers()
    codec = bc.load("snac_tiny", device="cpu")
    items = [voice(0.05 + 0.01 * number, 24_000, number) for number in range(10)]
    alone = [codec.encode(item, 24_000) for item in items]
    tasks = [asyncio.create_task(codec.aencode(items[number % 10], 24_000)) for number in range(200)]
    most = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.001)
        most = max(most, len(workers() - of_others))
    assert [task.result() for task in tasks] == alone * 20
    assert 1 <= most <= WORKERS


@pytest.mark.slow
def test_clients_of_a_server_that_come_leave_fail_stall_and_lose_connections(capsys, request):
    seconds = request.config.getoption("--serve-soak")
    found = report(capsys, "serve_soak.py", "24", str(seconds), timeout=seconds + 300)
    done = found["done"]
    assert done["whole"] > 20
    assert min(done[kind] for kind in ("left", "wrong", "late", "reconnects", "breaks")) > 0
    assert found["growth"] < 96


async def test_a_cancelled_task_frees_its_worker(monkeypatch):
    codec = bc.load("snac_tiny", device="cpu")
    codec.load()
    network = codec.backend.loaded().network
    steps: list[int] = []
    begun = threading.Event()
    step = network.encode_step

    def counted(*arguments):
        steps.append(1)
        begun.set()
        return step(*arguments)

    monkeypatch.setattr(network, "encode_step", counted)
    minutes = np.zeros(24_000 * 60 * 5, np.float32)
    tiles = minutes.size // (codec.spec.tile_frames * codec.spec.hop_length)
    tasks = [asyncio.create_task(codec.aencode(minutes, 24_000)) for _ in range(3 * WORKERS)]
    assert await asyncio.to_thread(begun.wait, 60)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    short = voice(0.1, 24_000)
    assert await codec.aencode(short, 24_000) == codec.encode(short, 24_000)  # a worker was free for it
    stopped = len(steps)
    assert stopped < tiles  # all of them together did not even do the work of one
    await asyncio.gather(*(codec.aencode(short, 24_000) for _ in range(2 * WORKERS)))
    assert len(steps) < stopped + 8 * WORKERS  # and nobody goes on with it


@pytest.mark.slow
def test_a_provider_goes_to_a_pool_of_processes_and_comes_back():
    codec = bc.load("snac_tiny", device="cpu")
    items = [voice(0.2, 24_000, number) for number in range(6)]
    wanted = [there_and_back(codec, item) for item in items]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(there_and_back, [codec] * 6, items))
        returned = pool.submit(copy.copy, codec).result()
    for (tokens, audio), (own_tokens, own_audio) in zip(results, wanted, strict=True):
        assert tokens == own_tokens
        assert np.abs(audio - own_audio).max() < 1e-5
    assert not returned.is_loaded
    assert (returned.name, returned.options) == (codec.name, codec.options)
    assert returned.encode(items[0], 24_000) == wanted[0][0]
