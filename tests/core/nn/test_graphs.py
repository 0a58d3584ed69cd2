"""Steps that are recorded and played are those that are run. On a GPU a CUDA graph plays them; here, what records goes through a
step and does it again on the same tensors, which is all that differs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.torch_backend import cuda_graphs
from blazen_codec_core.torch_backend.pools.batched import BatchedPool
from tests.helpers.pretended_graphs import pretend_graphs
from tests.helpers.processors import blocks

SECONDS = 3


@pytest.fixture
def capture(monkeypatch):
    return pretend_graphs(monkeypatch)


def voice(codec: bc.DynCodecProvider, seconds: float = SECONDS) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal((codec.channels, int(seconds * codec.sample_rate)))).astype(np.float32)


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
def test_sessions_with_graphs_are_bit_exact(name, capture):
    plain, codec = bc.load(name), bc.load(name, graphs=True)
    tile = 4 * codec.spec.block_frames
    pcm = voice(codec)
    session, other = (x.encoder_session(tile_frames=tile) for x in (codec, plain))
    pieces = [pcm[:, start : start + 1999] for start in range(0, pcm.shape[1], 1999)]
    parts = [*map(session.push, pieces), session.finish()]
    tokens = bc.CodecTokens.concat(parts)
    assert tokens == bc.CodecTokens.concat([*map(other.push, pieces), other.finish()])
    steps = codec.spec.frame_rate * SECONDS / tile
    assert capture.recorded == 1
    assert capture.played > 0.8 * steps - 4
    capture.recorded = capture.played = 0
    player, other = (x.decoder_session(tile_frames=tile) for x in (codec, plain))
    heard, wanted = (np.concatenate([*map(x.push, parts), x.finish()], axis=1) for x in (player, other))
    np.testing.assert_array_equal(heard, wanted)
    assert capture.recorded == 1
    assert capture.played > 0.8 * steps - 4


def test_concurrent_sessions_have_separate_buffers(capture):
    codec = bc.load("snac_tiny", graphs=True)
    signals = [voice(codec), voice(codec)[:, ::-1].copy()]
    sessions = [codec.encoder_session(tile_frames=codec.spec.block_frames) for _ in signals]
    parts: list[list[bc.CodecTokens]] = [[], []]
    for start in range(0, signals[0].shape[1], 4000):
        for session, pcm, static in zip(sessions, signals, parts, strict=True):
            static.append(session.push(pcm[:, start : start + 4000]))
    for session, pcm, static in zip(sessions, signals, parts, strict=True):
        assert bc.CodecTokens.concat([*static, session.finish()]) == bc.load("snac_tiny").encode(pcm, codec.sample_rate)
    assert capture.recorded == 2


@torch.inference_mode()
def test_other_shapes_are_captured_again(capture):
    codec = bc.load("snac_tiny", noise=False)
    network = codec.backend.loaded().network
    setup = codec.backend.setup(1)
    recorded = cuda_graphs.GraphedNetwork(network, capture)
    states = [x.decoder_state(setup) for x in (network, recorded)]
    group, generator = codec.spec.block_frames, torch.Generator().manual_seed(0)
    for count in (1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 3):
        indices = [torch.randint(64, (1, count * group // stride), generator=generator) for stride in codec.spec.strides]
        last = count == 3
        wanted, got = (x.decode_step(indices, state, last) for x, state in zip((network, recorded), states, strict=True))
        assert torch.equal(wanted, got)
    assert capture.recorded >= 2
    assert capture.played >= 3


def test_noise_depends_on_the_position_of_each_row(capture):
    def source(layer, position, count):
        return (100.0 * layer + np.atleast_1d(position)[:, None] + torch.arange(count).numpy())[:, :, None]

    noise = cuda_graphs.StaticNoise(lambda *wanted: torch.from_numpy(source(*wanted)))
    assert noise(1, 7, 2).flatten().tolist() == [107, 108]
    drawn = []
    for _ in range(2):  # a step that is captured again draws the same blocks
        with noise.captured(drawn, 2):
            first = cuda_graphs.SymbolicCount(0)
            made = [noise(1, first, 2), noise(1, first + 2, 1), noise(2, cuda_graphs.SymbolicCount(1), 1)]
    noise.fill(drawn, [np.array([10, 20]), np.array([3, 4])])
    assert [block.squeeze(2).tolist() for block in made] == [[[110, 111], [120, 121]], [[112], [122]], [[203], [204]]]
    assert noise(2, 50, 1).item() == 250


@pytest.mark.slow
@blocks
@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
def test_pools_with_graphs_are_bit_exact(name, capture):
    plain, codec = bc.load(name), bc.load(name, graphs=True)
    block = codec.spec.block_frames
    signals = [voice(codec, 0.3 + 0.2 * number) for number in range(6)]
    tokens = [plain.encoder_session(latency="lowest").push_last(pcm) for pcm in signals]
    with codec.encoder_pool(6) as pool:
        made = pooled(pool, [np.split(pcm, range(1999, pcm.shape[1], 1999), axis=1) for pcm in signals])
        assert set(pool.stats().bytes_per_bucket) <= {1, 2, 4, 8}
    assert [bc.CodecTokens.concat(parts) for parts in made] == tokens
    assert capture.played > 10
    heard = []
    for each in (codec, plain):
        with each.decoder_pool(6, first_tile_frames=block, tile_frames=2 * block) as pool:
            made = pooled(pool, [list(item.parts(block)) for item in tokens])
            heard.append([np.concatenate(parts, axis=1) for parts in made])
            assert (1 in pool.stats().bytes_per_bucket) == (each is codec)
    for mine, wanted in zip(*heard, strict=True):
        np.testing.assert_array_equal(mine, wanted)


def pooled(pool, pushes):
    """Outputs of streams that join and push in random order. The first leaves, others take its slot, and it comes again."""
    random, leaving = np.random.default_rng(0), pool.open()
    for part in pushes[0][:-1]:
        leaving.push(part)
    streams, left = [], [list(parts) for parts in (*pushes[1:], pushes[0])]
    outputs = {leaving: []}
    while len(streams) < len(left) or not all(stream.ended for stream in streams):
        if len(streams) < len(left) and random.random() < 0.3:
            streams.append(pool.open())
            outputs[streams[-1]] = []
        if len(streams) == 3:
            leaving.close()
        for stream, parts in zip(streams, left, strict=False):
            if parts and random.random() < 0.7:
                stream.push(parts.pop(0))
                if not parts:
                    stream.finish()
        for stream, output in pool.step().items():
            outputs[stream].append(output)
    *others, first = (outputs[stream] for stream in streams)
    return [first, *others]


@blocks
def test_streams_beyond_the_arenas_run_without(capture, monkeypatch):
    monkeypatch.setattr(BatchedPool, "ARENAS", 1)
    codec = bc.load("snac_tiny", graphs=True)
    block = codec.spec.block_frames
    tokens = codec.encode(voice(codec, 2), codec.sample_rate)
    pool = codec.decoder_pool(2, first_tile_frames=block, tile_frames=2 * block)
    outputs = {pool.open(): [], pool.open(): []}
    for number, stream in enumerate(outputs):  # the second runs in short tiles while the first has an arena of long ones
        stream.push(tokens)
        stream.finish()
        for _ in range(30 if number else 8):
            for each, output in pool.step(max_rows=1).items():
                outputs[each].append(output)
    while pool.stats().ready:
        for each, output in pool.step().items():
            outputs[each].append(output)
    first, second = (np.concatenate(parts, axis=1) for parts in outputs.values())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, codec.decode(tokens), rtol=0, atol=1e-6)


def test_devices_without_graphs_are_refused():
    with pytest.raises(bc.DeviceUnavailable, match="graphs"):
        bc.load("snac_tiny", graphs=True, device="cpu").encoder_session()
