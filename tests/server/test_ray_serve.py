"""The interface on Ray Serve: replicas that come with streams, and one that is killed."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import warnings

import numpy as np
import psutil
import pytest

import blazen_codec_core as bc
from blazen_codec_core.client import Client
from blazen_codec_core.server.ray_serve import Arguments, build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray warns of itself
ray = pytest.importorskip("ray", reason="Ray is in the session `slow`, and brings some seventy packages")
STREAMS = 6
PATIENCE = 120
ARGUMENTS = {
    "codecs": "snac_tiny",
    "num_cpus": 0.25,
    "min_replicas": 1,
    "max_replicas": 2,
    "target_streams": 2,
    "upscale_seconds": 0,
}


@pytest.fixture(scope="module")
def url():
    """Address of the application on a machine of one core."""
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:  # beside other tests a proxy takes more than five seconds to start
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", str(PATIENCE))
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)  # not a cluster of other tests
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(Arguments.model_validate(ARGUMENTS)))
    yield f"http://127.0.0.1:{port}"
    with warnings.catch_warnings(action="ignore"):  # processes that Ray does not wait for
        serve.shutdown()
        ray.shutdown()
        gc.collect()


def replicas() -> list[psutil.Process]:
    """Processes of replicas."""
    return [process for process in psutil.process_iter(["cmdline"]) if "ServeReplica" in " ".join(process.info["cmdline"] or ())]


async def until(condition) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE
        await asyncio.sleep(0.1)


async def test_replicas_come_with_streams_and_those_of_one_that_is_killed_go_on(url):
    codec = bc.load("snac_tiny")
    pcm = 0.1 * np.random.default_rng(0).standard_normal((1, 48_000)).astype(np.float32)
    tokens = codec.encode(pcm, codec.sample_rate)
    half, killed, is_half = len(tokens) // 8 * 4, asyncio.Event(), [asyncio.Event() for _ in range(STREAMS)]
    parts = [tokens.crop(0, half), tokens.crop(half, len(tokens) - half)]

    async def listen(number: int):
        async with Client(url, retries=8).decoder("snac_tiny") as stream:
            await stream.apush(parts[0])
            heard = [await stream.anext()]
            is_half[number].set()
            await killed.wait()
            await stream.apush(parts[1])
            await stream.afinish()
            heard += [pcm async for pcm in stream]
            return np.concatenate(heard, axis=1), stream.reconnects

    first = asyncio.create_task(listen(0))
    await is_half[0].wait()
    (of_the_first,) = replicas()
    early = [asyncio.create_task(listen(number)) for number in range(1, 4)]
    await until(lambda: len(replicas()) == 2)
    late = [asyncio.create_task(listen(number)) for number in range(4, STREAMS)]
    await asyncio.gather(*(event.wait() for event in is_half))
    of_the_first.kill()
    killed.set()
    found = await asyncio.gather(first, *early, *late)
    for heard, _ in found:
        np.testing.assert_allclose(heard, codec.decode(tokens), atol=1e-5)
    assert found[0][1]


async def test_whole_recordings_and_errors(url):
    codec, client = bc.load("snac_tiny"), Client(url)
    pcm = 0.1 * np.random.default_rng(1).standard_normal((1, 9_600)).astype(np.float32)
    assert await client.aencode("snac_tiny", pcm, codec.sample_rate) == codec.encode(pcm, codec.sample_rate)
    with pytest.raises(bc.UnknownCodec, match="dac_tiny is not offered"):
        await client.aencode("dac_tiny", pcm, 24_000)
