"""Steps that are recorded and played are those that are run. On a GPU a CUDA graph plays them; here, what records goes through a
step and does it again on the same tensors, which is all that differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.torch_backend import cuda_graphs

SECONDS = 3


class Pretended:
    """Fake graph that computes on the CPU and counts its replays."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        run()

        def play() -> None:
            self.played += 1
            run()

        return play


@pytest.fixture
def capture(monkeypatch):
    made = Pretended()
    monkeypatch.setattr(cuda_graphs, "CAPTURE_FNS", {"cpu": made})
    return made


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
    for blocks in (1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 3):
        indices = [torch.randint(64, (1, blocks * group // stride), generator=generator) for stride in codec.spec.strides]
        last = blocks == 3
        wanted, got = (x.decode_step(indices, state, last) for x, state in zip((network, recorded), states, strict=True))
        assert torch.equal(wanted, got)
    assert capture.recorded >= 2
    assert capture.played >= 3


def test_noise_depends_on_the_position(capture):
    def source(layer: int, position: int, count: int) -> torch.Tensor:
        return (100.0 * layer + position + torch.arange(count)).reshape(1, count, 1)

    noise = cuda_graphs.StaticNoise(source)
    assert noise(1, 7, 2).flatten().tolist() == [107, 108]
    noise.begin()
    slots = [noise(1, 10, 2), noise(2, 5, 1), noise(1, 12, 2)]
    for replays in range(3):
        noise.fill(replays)
        made = [slot.flatten().tolist() for slot in slots]
        at = 4 * replays
        assert made == [[110 + at, 111 + at], [205 + replays], [112 + at, 113 + at]]
    noise.begin()
    assert noise(1, 10, 2) is slots[0]
    noise.end()
    assert noise(2, 50, 1).item() == 250


def test_devices_without_graphs_are_refused():
    with pytest.raises(bc.DeviceUnavailable, match="graphs"):
        bc.load("snac_tiny", graphs=True, device="cpu").encoder_session()
