"""Streams of a pool get what they would get alone, whoever joins, leaves or fails beside them."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.torch_backend.pools.batched import BatchedPool
from tests.helpers.processors import blocks

TINY = ("snac_tiny", "dac_tiny", "encodec_tiny")
FIRST = (TINY[0], *(pytest.param(name, marks=pytest.mark.slow) for name in TINY[1:]))
"""For tests that take seconds for each model."""


@pytest.fixture(scope="module")
def codecs():
    loaded = {}

    def load(name: str, **options) -> bc.DynCodecProvider:
        key = name, tuple(sorted(options.items()))
        if key not in loaded:
            loaded[key] = bc.load(name, device="cpu", **options)
        return loaded[key]

    return load


def recording(codec, seconds: float, seed: int = 0) -> np.ndarray:
    samples = max(1, int(seconds * codec.sample_rate))
    return (0.1 * np.random.default_rng(seed).standard_normal((codec.channels, samples))).astype(np.float32)


def decoded(codec, tokens, tile: int) -> np.ndarray:
    return codec.decoder_session(tile_frames=tile).push_last(tokens)


def played(pool, pushes: list[list], between=lambda step, streams: None) -> list[np.ndarray]:
    """Outputs of streams that open one after the other, each with its list of pushes, one at every step."""
    streams, outputs, left = [], {}, [list(parts) for parts in pushes]
    step = 0
    while len(streams) < len(pushes) or not all(stream.ended for stream in streams):
        if len(streams) < len(pushes):
            streams.append(pool.open())
            outputs[streams[-1]] = []
        for stream, parts in zip(streams, left, strict=False):
            if parts:
                stream.push(parts.pop(0))
                if not parts:
                    stream.finish()
        between(step, streams)
        for stream, output in pool.step().items():
            outputs.setdefault(stream, []).append(output)
        step += 1
    return [outputs[stream] for stream in streams]


@blocks
@pytest.mark.parametrize("name", FIRST)
@settings(max_examples=5)
@given(data=st.data())
def test_decoders_that_join_and_leave(codecs, name, data):
    codec = codecs(name)
    block = codec.spec.block_frames
    count = data.draw(st.integers(1, 6))
    tokens = [codec.encode(recording(codec, data.draw(st.floats(0.02, 1.0)), seed), codec.sample_rate) for seed in range(count)]
    sizes = [data.draw(st.integers(1, 5)) for _ in tokens]
    with codec.decoder_pool(count) as pool:
        made = played(pool, [list(item.parts(block * size)) for item, size in zip(tokens, sizes, strict=True)])
        assert pool.stats().open == 0
    for item, parts in zip(tokens, made, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), decoded(codec, item, block))


@blocks
@pytest.mark.parametrize("name", FIRST)
@settings(max_examples=5)
@given(data=st.data())
def test_encoders_that_join_and_leave(codecs, name, data):
    codec = codecs(name)
    count = data.draw(st.integers(1, 6))
    signals = [recording(codec, data.draw(st.floats(0.02, 1.0)), seed) for seed in range(count)]
    cuts = [data.draw(st.integers(100, 9000)) for _ in signals]
    pushes = [
        [pcm[:, start : start + cut] for start in range(0, pcm.shape[1], cut)] for pcm, cut in zip(signals, cuts, strict=True)
    ]
    made = played(codec.encoder_pool(count), pushes)
    for pcm, parts in zip(signals, made, strict=True):
        session = codec.encoder_session(tile_frames=codec.spec.block_frames)
        assert bc.CodecTokens.concat(parts) == session.push_last(pcm)


@pytest.mark.parametrize("name", TINY)
def test_pools_of_any_codec_and_tile(codecs, name):
    codec = codecs(name)
    tile = codec.spec.tile_frames
    tokens = [codec.encode(recording(codec, seconds, seed), codec.sample_rate) for seed, seconds in enumerate((1.3, 0.4))]
    made = played(codec.decoder_pool(2, latency="throughput"), [[item] for item in tokens])
    for item, parts in zip(tokens, made, strict=True):
        np.testing.assert_allclose(np.concatenate(parts, axis=1), decoded(codec, item, tile), rtol=0, atol=1e-6)


def test_a_stream_may_begin_with_short_tiles(codecs):
    codec = codecs("snac_tiny")
    block = codec.spec.block_frames
    tokens = codec.encode(recording(codec, 2.0), codec.sample_rate)
    pool = codec.decoder_pool(1, tile_frames=4 * block, first_tile_frames=block)
    stream = pool.open()
    stream.push(tokens)
    stream.finish()
    outputs = []
    while not stream.ended:
        outputs.append(pool.step()[stream])
    lengths = [output.shape[1] for output in outputs]
    assert max(lengths[:4]) <= block * codec.spec.hop_length < max(lengths)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), codec.decode(tokens), rtol=0, atol=1e-6)


@blocks
@pytest.mark.parametrize("seed", range(3))
def test_windows_of_streams_at_different_places(codecs, seed):
    codec, random = codecs("dac_tiny"), np.random.default_rng(seed)
    wholes = [codec.encode(recording(codec, float(random.uniform(0.1, 1.0)), number), codec.sample_rate) for number in range(5)]
    extras = [{"window_frames": frames, "window_padded": True} for frames in (7, 7, 20)] + [{}, {}]
    tokens = [
        dataclasses.replace(whole, extra=extra, num_samples=whole.num_samples // 2)
        for whole, extra in zip(wholes, extras, strict=True)
    ]
    made = played(codec.decoder_pool(5), [list(item.parts(int(random.integers(1, 5)))) for item in tokens])
    for item, parts in zip(tokens, made, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), decoded(codec, item, codec.spec.block_frames))


@blocks
def test_segments_of_several_streams(codecs):
    codec = codecs("encodec_48khz", weights="random:0")
    segment = codec.spec.segment
    lengths = [100, segment.length, segment.stride + 1, 2 * segment.stride + 50]
    signals = [recording(codec, 3, seed)[:, :length] for seed, length in enumerate(lengths)]
    with codec.encoder_pool(4) as pool:
        pushes = [[pcm[:, start : start + 9001] for start in range(0, pcm.shape[1], 9001)] for pcm in signals]
        tokens = [bc.CodecTokens.concat(parts) for parts in played(pool, pushes)]
        assert pool.stats().open == 0
    for pcm, made in zip(signals, tokens, strict=True):
        assert made == codec.encoder_session().push_last(pcm)
    with codec.decoder_pool(4) as pool:
        made = played(pool, [list(item.parts(codec.spec.tile_frames)) for item in tokens])
    for item, parts in zip(tokens, made, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), codec.decoder_session().push_last(item))


def test_a_stream_hears_nothing_of_one_before_it(codecs):
    codec = codecs("snac_tiny")
    tokens = [codec.encode(recording(codec, 0.7, seed), codec.sample_rate) for seed in range(3)]
    pool = codec.decoder_pool(2)
    beside = pool.open()
    beside.push(tokens[2])
    for item in tokens[:2]:
        [made] = played(pool, [[item]])
        np.testing.assert_array_equal(np.concatenate(made, axis=1), decoded(codec, item, codec.spec.block_frames))


def test_a_stream_that_fails_ends_alone(codecs):
    codec, other = codecs("snac_tiny"), codecs("dac_tiny")
    tokens = codec.encode(recording(codec, 0.6), codec.sample_rate)
    wrong = other.encode(recording(other, 0.6), other.sample_rate)
    pool = codec.decoder_pool(4)
    failing = pool.open()
    failing.push(next(tokens.parts(codec.spec.block_frames)))

    def between(step, streams):
        if step == 1:
            with pytest.raises(bc.InvalidTokens, match="dac"):
                failing.push(wrong)
            assert failing.ended
            assert isinstance(failing.error, bc.InvalidTokens)

    [made] = played(pool, [list(tokens.parts(codec.spec.block_frames))], between)
    np.testing.assert_array_equal(np.concatenate(made, axis=1), decoded(codec, tokens, codec.spec.block_frames))
    with pytest.raises(bc.InvalidInput, match="ended"):
        failing.push(tokens)
    assert pool.stats().open == 0


def test_streams_that_close_leave_at_once(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 0.5), codec.sample_rate)
    with codec.decoder_pool(2) as pool:
        with pool.open() as stream:
            stream.push(tokens)
            assert stream in pool.step()
            assert pool.stats().bytes_per_stream > 0
        assert stream.ended
        assert pool.step() == {}
        assert pool.stats().open == 0


@pytest.mark.parametrize("name", TINY)
def test_a_stream_that_closes_as_a_step_begins(codecs, name):
    codec = codecs(name)
    tokens = codec.encode(recording(codec, 0.5), codec.sample_rate)
    pool = codec.decoder_pool(2, latency="throughput", first_tile_frames=codec.spec.block_frames)
    stays, leaves = pool.open(), pool.open()
    for stream in (stays, leaves):
        stream.push(tokens)
    run, pool._run = pool._run, lambda streams: (leaves.close(), run(streams))[1]
    assert set(pool.step()) == {stays}
    assert stays.error is None


def test_what_is_bounded(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 1.0), codec.sample_rate)
    pool = codec.decoder_pool(1, max_queue=0.5)
    stream = pool.open()
    with pytest.raises(bc.PoolFull, match="1 streams are open"):
        pool.open()
    stream.push(tokens)
    with pytest.raises(bc.PoolFull, match="queued"):
        stream.push(tokens)
    assert not stream.ended
    while pool.stats().ready:
        pool.step()
    assert stream.is_ready is False


def test_a_queue_may_always_have_a_tile(codecs):
    codec = codecs("snac_tiny")
    pcm, tile = recording(codec, 1.0), 8 * codec.spec.block_frames
    tokens = codec.encoder_session(tile_frames=tile).push_last(pcm)

    def stepped(pool, parts) -> list:
        stream, outputs = pool.open(), []
        for part in parts:
            try:
                stream.push(part)
            except bc.PoolFull:
                outputs += pool.step().values()
                stream.push(part)
        stream.finish()
        while not stream.ended:
            outputs += pool.step().values()
        return outputs

    encoders = codec.encoder_pool(1, tile_frames=tile, max_queue=1e-3)
    assert bc.CodecTokens.concat(stepped(encoders, np.array_split(pcm, 50, axis=1))) == tokens
    decoders = codec.decoder_pool(1, tile_frames=tile, max_queue=1e-3)
    heard = stepped(decoders, tokens.parts(codec.spec.block_frames))
    np.testing.assert_array_equal(np.concatenate(heard, axis=1), decoded(codec, tokens, tile))


def test_the_most_urgent_go_first(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 1.0), codec.sample_rate)
    pool = codec.decoder_pool(2)
    ahead, late = pool.open(), pool.open()
    for stream in (ahead, late):
        stream.push(tokens)
    while not ahead.seconds_left(0.0):
        pool.step(max_rows=1)
    assert list(pool.step(max_rows=1)) == [late]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_streams": 0}, "max_streams is 0"),
        ({"latency": "fast"}, "latency is 'fast'"),
        ({"tile_frames": 3}, "tile_frames is 3"),
        ({"first_tile_frames": -1}, "first_tile_frames is -1"),
        ({"max_queue": 0}, "max_queue is 0"),
        ({"max_queue": "1"}, "max_queue is '1'"),
    ],
)
def test_options_that_cannot_be_used(codecs, options, words):
    codec = codecs("snac_tiny")
    for open_pool in (codec.decoder_pool, codec.encoder_pool):
        with pytest.raises(bc.InvalidInput, match=words):
            open_pool(**options)
    with pytest.raises(bc.InvalidInput, match="max_rows is 0"):
        codec.decoder_pool().step(max_rows=0)


def test_a_stream_without_input_cannot_finish(codecs):
    codec = codecs("snac_tiny")
    with pytest.raises(bc.InvalidTokens, match="no tokens"):
        codec.decoder_pool().open().finish()
    with pytest.raises(bc.InvalidInput, match="no audio"):
        codec.encoder_pool().open().finish()


def test_serving(codecs):
    codec = codecs("snac_tiny")
    tokens = [codec.encode(recording(codec, 0.5 + 0.2 * seed, seed), codec.sample_rate) for seed in range(5)]

    async def listen(pool, item) -> np.ndarray:
        stream = pool.open()

        async def feed() -> None:
            for part in item.parts(codec.spec.block_frames):
                await stream.apush(part)
                await asyncio.sleep(0)
            stream.finish()

        feeding = asyncio.create_task(feed())
        parts = [pcm async for pcm in stream]
        await feeding
        return np.concatenate(parts, axis=1)

    async def serve() -> list[np.ndarray]:
        async with codec.decoder_pool(8, max_queue=0.4).serving() as pool:
            return await asyncio.gather(*(listen(pool, item) for item in tokens))

    for item, pcm in zip(tokens, asyncio.run(serve()), strict=True):
        np.testing.assert_array_equal(pcm, decoded(codec, item, codec.spec.block_frames))


def test_serving_streams_that_began_before(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 0.5), codec.sample_rate)

    async def serve() -> None:
        pool = codec.decoder_pool(2)
        goes_on, closed = pool.open(), pool.open()
        goes_on.push(tokens)
        goes_on.finish()
        closed.close()
        with pytest.raises(bc.InvalidInput, match="does not run by itself"):
            await _first(goes_on)
        async with pool.serving():
            with pytest.raises(bc.InvalidInput, match="already"):
                async with pool.serving():
                    pass
            parts = [pcm async for pcm in goes_on]
            assert [pcm async for pcm in goes_on] == [pcm async for pcm in closed] == []
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), decoded(codec, tokens, codec.spec.block_frames))
        assert [pcm async for pcm in goes_on] == []

    asyncio.run(asyncio.wait_for(serve(), 60))


def test_a_step_that_breaks_off_ends_its_streams_alone(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 0.5), codec.sample_rate)

    async def serve() -> None:
        pool = codec.decoder_pool(2)
        run = pool._run
        broken = pool.open()
        broken.push(tokens)

        def run_once(streams):
            pool._run = run
            list(run(streams))
            raise TypeError("of a plugin")

        pool._run = run_once
        async with pool.serving():
            with pytest.raises(bc.InferenceError, match="of a plugin"):
                await _first(broken)
            stream = pool.open()
            stream.push(tokens)
            stream.finish()
            heard = [pcm async for pcm in stream]
        np.testing.assert_array_equal(np.concatenate(heard, axis=1), decoded(codec, tokens, codec.spec.block_frames))

    asyncio.run(asyncio.wait_for(serve(), 60))


def test_an_error_reaches_the_one_who_listens(codecs):
    codec, other = codecs("snac_tiny"), codecs("dac_tiny")
    wrong = other.encode(recording(other, 0.3), other.sample_rate)

    async def serve() -> None:
        async with codec.decoder_pool(2).serving() as pool:
            stream = pool.open()
            listening = asyncio.create_task(_first(stream))
            await asyncio.sleep(0.01)
            with pytest.raises(bc.InvalidTokens):
                stream.push(wrong)
            with pytest.raises(bc.InvalidTokens):
                await listening

    asyncio.run(serve())


async def _first(stream) -> None:
    async for _ in stream:
        pass


def test_pushes_from_many_threads(codecs):
    codec = codecs("snac_tiny")
    tokens = [codec.encode(recording(codec, 0.8, seed), codec.sample_rate) for seed in range(6)]
    pool = codec.decoder_pool(6)
    streams = [pool.open() for _ in tokens]

    def feed(stream, item) -> None:
        for part in item.parts(codec.spec.block_frames):
            stream.push(part)
        stream.finish()

    threads = [threading.Thread(target=feed, args=pair) for pair in zip(streams, tokens, strict=True)]
    for thread in threads:
        thread.start()
    outputs = {stream: [] for stream in streams}
    while not all(stream.ended for stream in streams):
        for stream, output in pool.step().items():
            outputs[stream].append(output)
    for thread in threads:
        thread.join()
    for stream, item in zip(streams, tokens, strict=True):
        np.testing.assert_array_equal(np.concatenate(outputs[stream], axis=1), decoded(codec, item, codec.spec.block_frames))


async def _until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_stream_waits_for_its_listener_and_others_go_on(codecs):
    codec = codecs("snac_tiny")
    block = codec.spec.block_frames
    tokens = codec.encode(recording(codec, 2.0), codec.sample_rate)
    wanted = decoded(codec, tokens, block)

    async def serve() -> None:
        async with codec.decoder_pool(3, max_queue=0.3).serving() as pool:
            slow, fast = pool.open(), pool.open()
            stepped = []

            async def feed(stream) -> None:
                for part in tokens.parts(block):
                    await stream.apush(part)
                stream.finish()

            feeding = [asyncio.create_task(feed(stream)) for stream in (slow, fast)]
            heard = [pcm async for pcm in fast]
            np.testing.assert_array_equal(np.concatenate(heard, axis=1), wanted)
            await _until(lambda: pool.stats().held == 1 and not pool.stats().ready)
            assert not feeding[0].done()
            with pytest.raises(bc.PoolFull, match="take its outputs"):
                slow.push(tokens)
            steps = pool.stats().steps
            await asyncio.sleep(0.05)
            assert pool.stats().steps == steps
            async for pcm in slow:
                stepped.append(pcm)
                waiting = wanted.shape[1] - sum(part.shape[1] for part in stepped)
                assert slow.is_held <= (waiting > 0)
            np.testing.assert_array_equal(np.concatenate(stepped, axis=1), wanted)
            await asyncio.gather(*feeding)

    asyncio.run(asyncio.wait_for(serve(), 60))


def test_outputs_that_nobody_takes_are_bounded(codecs):
    codec = codecs("snac_tiny")
    block = codec.spec.block_frames
    tokens = codec.encode(recording(codec, 3.0), codec.sample_rate)

    async def serve() -> None:
        async with codec.decoder_pool(2, max_queue=0.4).serving() as pool:
            stream = pool.open()
            pushed = 0.0
            for part in tokens.parts(block):
                try:
                    await asyncio.wait_for(stream.apush(part), 0.5)
                except TimeoutError:
                    break
                pushed += part.seconds
            inside = codec.decoder_session(latency="lowest").latency_samples / codec.sample_rate
            assert 0.4 <= pushed < 2 * (0.4 + block / codec.frame_rate) + inside  # as much on either side, and a block each
            stream.close()
            assert pool.stats().open == 0
            heard = sum(pcm.shape[1] for pcm in [pcm async for pcm in stream])
            assert 0 < heard / codec.sample_rate < 0.4 + 2 * block / codec.frame_rate

    asyncio.run(asyncio.wait_for(serve(), 60))


def test_listening_to_a_held_stream_can_be_cancelled(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(recording(codec, 1.0), codec.sample_rate)

    async def serve() -> None:
        async with codec.decoder_pool(1, max_queue=0.1).serving() as pool:
            stream = pool.open()
            stream.push(tokens)
            await _until(lambda: stream.is_held)
            feeding = asyncio.create_task(stream.apush(tokens))
            await asyncio.sleep(0.02)
            feeding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await feeding
        assert stream.ended  # leaving closes it

    asyncio.run(asyncio.wait_for(serve(), 60))


@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy], ids=["pickled", "copied"])
def test_what_holds_a_signal_is_neither_pickled_nor_copied(codecs, copies):
    codec = codecs("snac_tiny")
    pool = codec.decoder_pool(1)
    for holder in (pool, pool.open(), codec.decoder_session(), codec.encoder_session()):
        with pytest.raises(TypeError, match="pickle the provider"):
            copies(holder)


@pytest.mark.slow
@blocks
@pytest.mark.parametrize("seed", range(2))
def test_more_streams_than_rows_of_a_batch(codecs, seed, monkeypatch):
    monkeypatch.setattr(BatchedPool, "ROWS", 4)
    codec, random = codecs("snac_tiny"), np.random.default_rng(seed)
    block = codec.spec.block_frames
    tokens = [codec.encode(recording(codec, 0.4 + 0.1 * number, number), codec.sample_rate) for number in range(11)]
    pool = codec.decoder_pool(11)
    streams, heard = [], {}
    left = [list(item.parts(block)) for item in tokens]
    while any(left) or pool.stats().ready:
        if len(streams) < len(left) and random.random() < 0.7:
            streams.append(pool.open())
            heard[streams[-1]] = []
        share = random.choice([0.3, 1.0, 1.0])  # often all are ready
        for stream, parts in zip(streams, left, strict=False):
            if parts and random.random() < share:
                stream.push(parts.pop(0))
                if not parts:
                    stream.finish()
        for stream, pcm in pool.step().items():
            heard[stream].append(pcm)
    for stream, item in zip(streams, tokens, strict=True):
        np.testing.assert_array_equal(np.concatenate(heard[stream], axis=1), decoded(codec, item, block))
