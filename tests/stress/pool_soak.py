"""python tests/stress/pool_soak.py STREAMS SECONDS: streams of one pool that come, go, fail and stall, in threads and in tasks.

Each stream's audio is compared with what its tokens give alone. Prints JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import random
import sys
import threading
import time
from collections import Counter

import numpy as np
import psutil

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn.kernels.dispatch import is_batch_exact

STREAMS, SECONDS = int(sys.argv[1]), float(sys.argv[2])
SIGNALS = 12
FEEDERS = 4
"""Threads that push; each has an equal share of the streams."""
ROUNDING = 1e-6


class Signals:
    """Tokens of some lengths, and their audio in a session."""

    def __init__(self, codec: bc.DynCodecProvider) -> None:
        seconds = np.random.default_rng(0).uniform(0.05, 1.5, SIGNALS)
        self.tokens = [
            codec.encode(voice(length, codec.sample_rate, seed), codec.sample_rate) for seed, length in enumerate(seconds)
        ]
        self.audio = [codec.decoder_session(latency="lowest").push_last(tokens) for tokens in self.tokens]
        self.block = codec.spec.block_frames
        self.exact = is_batch_exact(codec.backend.setup(1).device)

    def check(self, number: int, parts: list[np.ndarray], whole: bool) -> None:
        """Compare what a stream got with the beginning of its signal, or with all of it."""
        got = np.concatenate([np.zeros((1, 0), np.float32), *parts], axis=1)
        wanted = self.audio[number]
        assert got.shape[1] == wanted.shape[1] if whole else got.shape[1] <= wanted.shape[1], (got.shape, wanted.shape)
        difference = float(np.abs(got - wanted[:, : got.shape[1]]).max(initial=0))
        assert difference <= (0 if self.exact else ROUNDING), difference


class Feeder:
    """One thread's streams, each in a random course: to the end, closed in the middle, broken by other tokens, or stalled."""

    def __init__(self, pool, signals: Signals, most: int, seed: int) -> None:
        self.pool, self.signals, self.most, self.random = pool, signals, most, random.Random(seed)
        self.running: dict = {}
        self.parts: dict = {}
        self.heard: set = set()  # streams whose last output was noted
        self.done: Counter[str] = Counter()

    def open(self) -> None:
        number = self.random.randrange(SIGNALS)
        try:
            stream = self.pool.open()
        except bc.PoolFull:
            self.done["refused"] += 1
            return
        pieces = list(self.signals.tokens[number].parts(self.signals.block * self.random.choice([1, 1, 2, 5, 100])))
        end = self.random.choices(["whole", "closed", "broken", "stalled"], [6, 1, 1, 1])[0]
        kept = len(pieces) if end == "whole" else self.random.randrange(len(pieces))
        self.parts[stream] = []
        self.running[stream] = [number, end, pieces[:kept], time.monotonic() + self.random.uniform(0.5, 3)]

    def feed(self) -> None:
        """Push to some streams, and end those whose course is over."""
        if len(self.running) < self.most:
            self.open()
        for stream in self.random.sample(list(self.running), min(8, len(self.running))):
            number, end, pieces, until = self.running[stream]
            try:
                if pieces:
                    stream.push(pieces[0])
                    pieces.pop(0)
                    continue
                if end == "finished":
                    if stream in self.heard:
                        self.heard.remove(stream)
                        self.over(stream, whole=True)
                elif end == "whole":
                    stream.finish()
                    self.running[stream][1] = "finished"
                elif end == "broken":
                    try:
                        stream.push(dataclasses.replace(self.signals.tokens[number], codec="another:model"))
                    except bc.InvalidTokens:
                        assert stream.ended
                        self.over(stream, whole=False)
                elif end == "closed" or (end == "stalled" and time.monotonic() > until):
                    stream.close()
                    self.over(stream, whole=False)
            except bc.PoolFull:
                self.done["waited"] += 1

    def over(self, stream, whole: bool) -> None:
        number, end, _, _ = self.running.pop(stream)
        self.signals.check(number, self.parts.pop(stream), whole)
        self.done[end] += 1


def in_threads(codec: bc.DynCodecProvider, signals: Signals) -> tuple[Counter[str], list[int]]:
    """Feeders in threads, and steps in this one."""
    pool = codec.decoder_pool(STREAMS, max_queue=2.0)
    feeders = [Feeder(pool, signals, STREAMS // FEEDERS + 1, seed) for seed in range(FEEDERS)]
    end, failures = time.monotonic() + SECONDS / 2, []
    lock = threading.Lock()

    def run(feeder: Feeder) -> None:
        try:
            while time.monotonic() < end or feeder.running:
                with lock:  # what a step gave is noted before the next call of a feeder
                    if time.monotonic() >= end:
                        feeder.most = 0  # none are opened any more
                    feeder.feed()
                time.sleep(0.002)  # threads that spin would keep the lock of Python from the steps
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(feeder,)) for feeder in feeders]
    for thread in threads:
        thread.start()
    open_streams, resident, process = [], [], psutil.Process()
    while any(thread.is_alive() for thread in threads):
        made = pool.step()
        with lock:
            for stream, pcm in made.items():
                for feeder in feeders:
                    if stream in feeder.parts:
                        feeder.parts[stream].append(pcm)
                        if stream.ended:
                            assert stream.error is None, stream.error
                            feeder.heard.add(stream)
        open_streams.append(pool.stats().open)
        resident.append(process.memory_info().rss)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert pool.stats().open == 0
    done = sum((feeder.done for feeder in feeders), Counter())
    done["most open"] = max(open_streams)
    return done, resident


async def in_tasks(codec: bc.DynCodecProvider, signals: Signals) -> Counter[str]:
    """A task for each stream, in a pool that steps by itself; some listen late."""
    choice, done = random.Random(1), Counter()
    end = time.monotonic() + SECONDS / 2

    async def listen(pool) -> None:
        while time.monotonic() < end:
            number = choice.randrange(SIGNALS)
            leaves, is_late = choice.random() < 0.2, choice.random() < 0.2
            with pool.open() as stream:

                async def feed(stream=stream, number=number) -> None:
                    for part in signals.tokens[number].parts(signals.block * 2):
                        await stream.apush(part)
                        await asyncio.sleep(choice.choice([0, 0, 0.01]))
                    stream.finish()

                feeding, parts = asyncio.create_task(feed()), []
                while is_late and not (stream.is_held or stream.ended):
                    await asyncio.sleep(0.02)
                done["task held"] += stream.is_held
                async for pcm in stream:
                    parts.append(pcm)
                    if leaves and choice.random() < 0.3:
                        feeding.cancel()
                        break
                await asyncio.gather(feeding, return_exceptions=True)
            signals.check(number, parts, whole=stream.ended and not leaves)
            done["task left" if leaves else "task whole"] += 1

    async with codec.decoder_pool(STREAMS, max_queue=0.1).serving() as pool:
        await asyncio.gather(*(listen(pool) for _ in range(max(1, STREAMS // 4))))
    return done


def main() -> None:
    codec = bc.load("snac_tiny", device="cpu")
    signals = Signals(codec)
    done, resident = in_threads(codec, signals)
    done += asyncio.run(in_tasks(codec, signals))
    gc.collect()
    third = len(resident) // 3
    growth = (max(resident[-third:]) - max(resident[third : 2 * third])) / 2**20
    print(json.dumps({"done": done, "growth": growth}))


if __name__ == "__main__":
    main()
