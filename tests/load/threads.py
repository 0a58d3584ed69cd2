"""python threads.py THREADS SECONDS: threads encode and decode through one handle while its weights come and go. Prints JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import random
import sys
import threading
import time

import numpy as np
import psutil

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice

THREADS, SECONDS = int(sys.argv[1]), float(sys.argv[2])
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
done = {"encoded": 0, "decoded": 0, "unloaded": 0, "wrong": 0}
errors: list[str] = []
lock = threading.Lock()


def add(what: str) -> None:
    with lock:
        done[what] += 1


def work(seed: int) -> None:
    draw = random.Random(seed)
    try:
        while time.monotonic() < ends:
            number = draw.randrange(len(items))
            if draw.random() < 0.5:
                right = codec.encode(items[number], 24_000) == tokens[number]
                add("encoded")
            else:
                right = np.array_equal(codec.decode(tokens[number]), audio[number])
                add("decoded")
            if not right:
                add("wrong")
    except BaseException as error:
        errors.append(repr(error))


def race() -> None:
    draw = random.Random(0)
    while time.monotonic() < ends:
        time.sleep(draw.random() * 0.05)
        codec.unload()
        add("unloaded")
        if draw.random() < 0.5:
            codec.load()


threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(THREADS)]
threads.append(threading.Thread(target=race, daemon=True))
for thread in threads:
    thread.start()
resident = []
while time.monotonic() < ends:
    time.sleep(SECONDS / 12)
    TRIM(0)
    resident.append(round(process.memory_info().rss / 2**20, 1))
for thread in threads:
    thread.join(timeout=60)
stuck = sum(thread.is_alive() for thread in threads)
print(json.dumps({**done, "errors": errors, "stuck": stuck, "rss": resident, "held": [before, held()], "threads": THREADS}))
