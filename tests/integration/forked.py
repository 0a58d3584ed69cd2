"""python tests/integration/forked.py CODEC: forks of a process that has loaded a codec, in every way that hosts fork, as JSON."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.forks import is_forked_child

warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of forks beside threads
faulthandler.register(signal.SIGALRM, chain=True)
PATIENCE = 120
"""Seconds, after which a child says where it hangs and ends."""


def forked(check: Callable[[], bool]) -> str:
    """What became of a child that checks something."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        ok = False
        try:
            ok = bool(is_forked_child() and check())
        finally:
            os._exit(0 if ok else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "same", 3: "other"}.get(code, signal.Signals(-code).name if code < 0 else str(code))


BRIEF = voice(0.3, 24_000)  # here, since NumPy loads parts of itself when they are first used


def same_tokens(name: str) -> bool:
    codec = bc.load(name, device="cpu")
    return codec.encode(BRIEF, 24_000) == codec.encode(BRIEF, 24_000)


def during_imports() -> list[str]:
    """Children of the moments in which another thread imports, compiles and loads for the first time."""
    thread = threading.Thread(target=same_tokens, args=(sys.argv[1],))
    thread.start()
    found = []
    while thread.is_alive():
        time.sleep(0.1)
        found.append(forked(lambda: same_tokens(sys.argv[1])))
    return found


first = during_imports()
codec = bc.load(sys.argv[1], device="cpu")
rate = codec.sample_rate
pcm = np.stack([voice(0.5, rate, seed) for seed in range(codec.channels)])
wanted = codec.encode(pcm, rate)
audio = codec.decode(wanted)
asyncio.run(codec.aencode(pcm, rate))  # its threads are there
session = codec.encoder_session()
begun = session.push(pcm[:, : rate // 4])


def same(tokens: bc.CodecTokens, decoded: np.ndarray | None = None) -> bool:
    return tokens == wanted and (decoded is None or np.abs(decoded - audio).max() < 1e-6)


def there_and_back() -> bool:
    tokens = codec.encode(pcm, rate)
    return same(tokens, codec.decode(tokens))


def loaded_anew() -> bool:
    other = bc.load(sys.argv[1], device="cpu")
    return same(other.encode(pcm, rate), other.decode(wanted))


def with_tasks() -> bool:
    async def all_of_them() -> list[bc.CodecTokens]:
        return list(await asyncio.gather(*(codec.aencode(pcm, rate) for _ in range(6))))

    return all(same(tokens) for tokens in asyncio.run(all_of_them()))


def session_of_the_parent() -> bool:
    return same(bc.CodecTokens.concat([begun, session.push(pcm[:, rate // 4 :]), session.finish()]))


def in_threads() -> bool:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(there_and_back())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found == [True] * 4


def grandchild() -> bool:
    return there_and_back() and forked(there_and_back) == "same"


def after_others_of_torch() -> bool:
    """Where the host uses PyTorch as a worker of a `DataLoader` does."""
    torch.set_num_threads(1)
    return bool(torch.ones(500, 500).mm(torch.ones(500, 500)).sum() > 0) and there_and_back() and torch.get_num_threads() == 1


def while_another_thread_loads() -> bool:
    """A child of a moment in which another thread downloads weights, and so holds a lock."""
    other = bc.load(sys.argv[1], device="cpu")
    inside, go_on = threading.Event(), threading.Event()
    locate = weights.locate

    def slowly(*asked: object) -> object:
        inside.set()
        go_on.wait()
        return locate(*asked)  # type: ignore[arg-type]

    weights.locate = slowly  # type: ignore[assignment]
    thread = threading.Thread(target=other.load)
    thread.start()
    inside.wait()
    weights.locate = locate
    found = forked(lambda: same(other.encode(pcm, rate)))
    go_on.set()
    thread.join()
    return found == "same"


def while_others_work(count: int) -> list[str]:
    """Children of a process whose threads encode and decode all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            there_and_back()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    found = []
    for number in range(count):
        time.sleep(0.01 * (number % 7))
        found.append(forked(there_and_back))
    stop.set()
    for thread in threads:
        thread.join()
    return found


class Recordings(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> bool:
        return same(codec.encode(pcm, rate))


found = {check.__name__: forked(check) for check in (
    there_and_back, loaded_anew, with_tasks, session_of_the_parent, in_threads, grandchild, after_others_of_torch
)}  # fmt: skip
found["while_another_thread_loads"] = "same" if while_another_thread_loads() else "other"
loader = torch.utils.data.DataLoader(Recordings(), num_workers=2, multiprocessing_context="fork", timeout=PATIENCE)
found["data_loader"] = "same" if all(bool(ok) for ok in loader) else "other"
with multiprocessing.get_context("fork").Pool(2) as pool:
    found["pool"] = "same" if all(pool.starmap_async(there_and_back, [()] * 4).get(PATIENCE)) else "other"
others = while_others_work(int(sys.argv[2]))
found["while_others_work"] = "same" if set(others) == {"same"} else json.dumps(others)
found["during_imports"] = "same" if set(first) <= {"same"} else json.dumps(first)
found["parent"] = "same" if there_and_back() and not is_forked_child() else "other"
print(json.dumps({**found, "threads": torch.get_num_threads()}))
