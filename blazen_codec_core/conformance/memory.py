"""python -m blazen_codec_core.conformance.memory NAME DEVICE [WEIGHTS]: memory of a process during sessions, in MiB.

Prints the seconds of audio between measurements, six RSS values, and the memory in use half way and at the end.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]

from .subject import Subject

WORK_SECONDS = 1.0
"""Target computing time in seconds between measurements."""


def main(name: str, device: str, weights: str | None = None) -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # glibc: returns unused heap memory
    subject = Subject(name, weights, device)
    codec = subject.load()
    streams = codec.spec.capabilities.streams
    process = psutil.Process()
    second = (np.random.default_rng(0).standard_normal((codec.channels, codec.sample_rate)) * 0.1).astype(np.float32)
    some = codec.encode(np.tile(second, 2), codec.sample_rate)
    part = next(some.parts(subject.unit))
    session = codec.encoder_session() if "encode" in streams else None
    player = codec.decoder_session() if "decode" in streams else None

    def work() -> None:
        tokens = session.push(second) if session else part
        if player:
            player.push(tokens)

    work()
    started = time.perf_counter()
    for _ in range(3):
        work()
    count = max(2, math.ceil(WORK_SECONDS * 3 / (time.perf_counter() - started)))
    seen, used = [], []
    for number in range(6):
        for _ in range(count):
            work()
        seen.append(process.memory_info().rss / 2**20)
        if number % 3 == 2:
            trim(0)
            used.append(process.memory_info().rss / 2**20)
    print(count, *seen, *used)


if __name__ == "__main__":
    main(*sys.argv[1:])
