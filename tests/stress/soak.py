"""python tests/stress/soak.py THREADS SECONDS: threads, tasks, forks and interrupts on one handle, whose weights come and go.

Prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import psutil

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice

warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of forks beside threads
faulthandler.register(signal.SIGALRM, chain=True)
THREADS, SECONDS = int(sys.argv[1]), float(sys.argv[2])
PATIENCE = 120
"""Seconds, after which a child says where it hangs and ends."""
LIBC = ctypes.CDLL(None)
TRIM = getattr(LIBC, "malloc_trim", lambda _: 0)


class Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33: bytes over the heaps of all threads."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def held() -> float | None:
    """MiB allocated and not freed while the codec is unloaded; None where the C library does not tell.

    The process is larger: 33 threads have heaps of their own, and what was freed in one lies there between what is in use.
    """
    codec.unload()
    gc.collect()
    if not hasattr(LIBC, "mallinfo2"):
        return None
    LIBC.mallinfo2.restype = Heap
    heap = LIBC.mallinfo2()
    return round((heap.uordblks + heap.hblkhd) / 2**20, 1)


codec = bc.load("snac_tiny", device="cpu")
items = [voice(0.1 + 0.15 * number, 24_000, number) for number in range(8)]
tokens = [codec.encode(item, 24_000) for item in items]
audio = [codec.decode(own) for own in tokens]
process = psutil.Process()
before = held()
ends = time.monotonic() + SECONDS
done: Counter[str] = Counter()
errors: list[str] = []
lock, armed = threading.Lock(), threading.Event()


def add(what: str, count: int = 1) -> None:
    with lock:
        done[what] += count


def encoded(number: int, draw: random.Random) -> bool:
    return codec.encode(items[number], 24_000) == tokens[number]


def decoded(number: int, draw: random.Random) -> bool:
    return np.array_equal(codec.decode(tokens[number]), audio[number])


def in_batches(number: int, draw: random.Random) -> bool:
    numbers = [number, draw.randrange(len(items)), number]
    return codec.encode_batch([items[each] for each in numbers], 24_000) == [tokens[each] for each in numbers]


def in_pieces(number: int, draw: random.Random) -> bool:
    session, at = codec.encoder_session(), draw.randrange(len(items[number]))
    pieces = [session.push(items[number][:at]), session.push(items[number][at:]), session.finish()]
    return bc.CodecTokens.concat(pieces) == tokens[number]


def refused(number: int, draw: random.Random) -> bool:
    with contextlib.suppress(bc.InvalidInput):
        codec.encode(items[number] * np.nan, 24_000)
        return False
    return True


CALLS: tuple[Callable[[int, random.Random], bool], ...] = (encoded, decoded, in_batches, in_pieces, refused)


def call(draw: random.Random) -> None:
    one = draw.choice(CALLS)
    right = one(draw.randrange(len(items)), draw)
    add(one.__name__)
    if not right:
        add("wrong")


def steadily(work: Callable[[random.Random], None]) -> Callable[[int], None]:
    """Does something until time is up; an error ends it and is noted."""

    def run(seed: int) -> None:
        draw = random.Random(seed)
        try:
            while time.monotonic() < ends:
                work(draw)
        except BaseException as error:
            errors.append(f"{work.__name__}: {error!r}")

    return run


def race(draw: random.Random) -> None:
    time.sleep(draw.random() * 0.05)
    codec.unload()
    add("unloaded")
    if draw.random() < 0.5:
        codec.load()


def tasks(draw: random.Random) -> None:
    """Some tasks, half of which are cancelled."""

    async def all_of_them() -> None:
        numbers = [draw.randrange(len(items)) for _ in range(8)]
        running = [asyncio.create_task(codec.aencode(items[number], 24_000)) for number in numbers]
        await asyncio.sleep(draw.random() * 0.05)
        for task in running[::2]:
            task.cancel()
        for number, result in zip(numbers, await asyncio.gather(*running, return_exceptions=True), strict=True):
            if isinstance(result, asyncio.CancelledError):
                add("cancelled")
            elif result == tokens[number]:
                add("awaited")
            else:
                add("wrong")

    asyncio.run(all_of_them())


def forks(draw: random.Random) -> None:
    """A child that does what its parent does."""
    time.sleep(draw.random() * 0.2)
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        ok = False
        try:
            number = draw.randrange(len(items))
            codec.load()
            ok = encoded(number, draw) and np.abs(codec.decode(tokens[number]) - audio[number]).max() < 1e-6
        finally:
            os._exit(0 if ok else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    add("forked")
    if code:
        errors.append(f"a forked child ended with {code}")


def interrupts(draw: random.Random) -> None:
    time.sleep(draw.random() * 0.4)
    os.kill(os.getpid(), signal.SIGINT)
    add("sent")


def interrupt(*_: object) -> None:
    """What SIGINT does: raise, unless one was raised that nobody has caught yet."""
    if armed.is_set():
        armed.clear()
        raise KeyboardInterrupt


def interrupted(draw: random.Random) -> None:
    """Calls of the main thread, which interrupts break off."""
    while time.monotonic() < ends:
        try:
            armed.set()
            while time.monotonic() < ends:
                call(draw)
        except KeyboardInterrupt:
            add("interrupted")
        except bc.WeightsUnavailable:  # what safetensors makes of an interrupt that comes while it calls back
            if armed.is_set():
                raise
            add("interrupted")
    armed.clear()


signal.signal(signal.SIGINT, interrupt)
threads = [threading.Thread(target=steadily(call), args=(seed,), daemon=True) for seed in range(THREADS)]
threads += [threading.Thread(target=steadily(work), args=(0,), daemon=True) for work in (race, tasks, forks, interrupts)]
resident = []


def watch() -> None:
    while time.monotonic() < ends:
        time.sleep(SECONDS / 12)
        TRIM(0)
        resident.append(round(process.memory_info().rss / 2**20, 1))


threads.append(threading.Thread(target=watch, daemon=True))
for thread in threads:
    thread.start()
interrupted(random.Random(0))
for thread in threads:
    thread.join(timeout=PATIENCE)
stuck = sum(thread.is_alive() for thread in threads)
print(json.dumps({**done, "errors": errors, "stuck": stuck, "rss": resident, "held": [before, held()], "threads": THREADS}))
