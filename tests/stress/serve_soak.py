"""python tests/stress/serve_soak.py STREAMS SECONDS: clients of a server that come, leave, fail, stall and lose connections.

Each stream's audio is compared with that of a session of the same tile. Prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter

import numpy as np
import psutil

import blazen_codec_core as bc
from blazen_codec_core.client import Client
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn.kernels.dispatch import is_batch_exact
from tests.helpers.live_server import Served, serving_api

STREAMS, SECONDS = int(sys.argv[1]), float(sys.argv[2])
SIGNALS = 8
BREAKS = 8.0
"""Seconds between failures of the network, in which all connections are lost; streams need time to get further."""
ROUNDING = 1e-6


class Listeners:
    """Streams of one client, one after the other, each in a random course."""

    def __init__(self, served: Served, codec: bc.DynCodecProvider) -> None:
        self.served, self.client = served, Client(served.url, retries=20)
        seconds = np.random.default_rng(0).uniform(0.1, 3.0, SIGNALS)
        self.tokens = [
            codec.encode(voice(length, codec.sample_rate, seed), codec.sample_rate) for seed, length in enumerate(seconds)
        ]
        self.audio = [codec.decoder_session(latency="lowest").push_last(tokens) for tokens in self.tokens]
        self.wrong = bc.load("encodec_tiny", device="cpu").encode(voice(0.2, 24_000), 24_000)
        self.rounding = 0.0 if is_batch_exact(codec.backend.setup(1).device) else ROUNDING
        self.done: Counter[str] = Counter()
        self.end = time.monotonic() + SECONDS

    async def listen(self, seed: int) -> None:
        choice = random.Random(seed)
        while time.monotonic() < self.end:
            number = choice.randrange(SIGNALS)
            course = choice.choices(["whole", "left", "wrong", "late"], [6, 1, 1, 1])[0]
            async with self.client.decoder("snac_tiny") as stream:
                feeding = asyncio.create_task(self.feed(stream, number, course, choice))
                if course == "late":
                    await asyncio.sleep(choice.uniform(0.1, 0.5))
                parts = []
                try:
                    async for pcm in stream:
                        parts.append(pcm)
                        if course == "left" and choice.random() < 0.2:
                            break
                    self.check(number, parts, whole=course in ("whole", "late"))
                    assert course != "wrong", "wrong tokens were decoded"
                except bc.InvalidTokens:
                    assert course == "wrong"
                    self.check(number, parts, whole=False)
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
                self.done[course] += 1
                self.done["reconnects"] += stream.reconnects

    async def feed(self, stream, number: int, course: str, choice: random.Random) -> None:
        for part in self.tokens[number].parts(4 * choice.choice([1, 2, 8, 100])):
            await stream.apush(part)
            await asyncio.sleep(choice.choice([0, 0, 0.02]))
        if course == "wrong":
            await stream.apush(self.wrong)
        await stream.afinish()

    def check(self, number: int, parts: list[np.ndarray], whole: bool) -> None:
        got = np.concatenate([np.zeros((1, 0), np.float32), *parts], axis=1)
        wanted = self.audio[number]
        assert got.shape[1] == wanted.shape[1] if whole else got.shape[1] <= wanted.shape[1], (got.shape, wanted.shape)
        assert np.abs(got - wanted[:, : got.shape[1]]).max(initial=0) <= self.rounding

    async def fail_network(self) -> None:
        while True:
            await asyncio.sleep(BREAKS)
            await asyncio.to_thread(self.served.break_connections)
            self.done["breaks"] += 1

    async def run(self) -> list[int]:
        resident, process = [], psutil.Process()
        failing = asyncio.create_task(self.fail_network())
        listeners = [asyncio.create_task(self.listen(seed)) for seed in range(STREAMS)]
        while not all(listener.done() for listener in listeners):
            await asyncio.sleep(0.2)
            resident.append(process.memory_info().rss)
        failing.cancel()
        for listener in listeners:
            listener.result()
        return resident


def main() -> None:
    codec = bc.load("snac_tiny", device="cpu")
    with serving_api(queue_seconds=1.0) as served:
        listeners = Listeners(served, codec)
        resident = asyncio.run(listeners.run())
        started = time.monotonic()
        while served.streams() or served.service.open_streams:
            assert time.monotonic() - started < 20, "streams are left"
            time.sleep(0.05)
    gc.collect()
    third = len(resident) // 3
    growth = (max(resident[-third:]) - max(resident[third : 2 * third])) / 2**20
    print(json.dumps({"done": listeners.done, "growth": growth}))


if __name__ == "__main__":
    main()
