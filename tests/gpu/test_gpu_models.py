"""Models on the kernels for GPUs: the tokens of the CPU, in any pieces and beside any neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.backends import load_cpu_backend
from blazen_codec_core.nn.kernels.triton import depthwise_conv, gemm_conv
from blazen_codec_core.nn.layers import conv

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*on a CPU, which takes:blazen_codec_core.SlowerNotice")]
SECONDS = 0.12
"""The interpreter takes a second for every few milliseconds."""
NAMES = ("snac_tiny", "dac_tiny", "encodec_tiny")


def recording(codec: bc.DynCodecProvider, seconds: float = SECONDS) -> np.ndarray:
    return np.stack([voice(seconds, codec.sample_rate, channel) for channel in range(codec.channels)])


@pytest.fixture(scope="module", params=NAMES)
def codec(request, device):
    made = bc.load(request.param, device=str(device))
    made.load()
    modules = made.backend.loaded().network.modules()
    kinds = [type(module._prepared) for module in modules if isinstance(module, conv.ConvBase)]
    assert kinds
    assert {kind.__module__ for kind in kinds} <= {gemm_conv.__name__, depthwise_conv.__name__}, kinds
    return made


@pytest.fixture(scope="module")
def plain(codec):
    """The same on a CPU, without the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "backends_for", lambda device: [b for b in (load_cpu_backend(), dispatch.ATEN) if b])
        made = bc.load(codec.spec.name, device="cpu")
        pcm = recording(codec)
        tokens = made.encode(pcm, made.sample_rate)
        yield pcm, tokens, made.decode(tokens)


@pytest.fixture(scope="module")
def audio(codec, plain):
    """What these kernels make of the CPU's tokens."""
    return codec.decode(plain[1])


def test_tokens_and_audio_are_those_of_the_cpu(codec, plain, audio):
    pcm, tokens, wanted = plain
    assert codec.encode(pcm, codec.sample_rate) == tokens
    assert np.abs(audio - wanted).max() < 1e-6


def test_pieces_and_tiles_of_any_size_give_the_same(codec, plain, audio, same):
    pcm, tokens, _ = plain
    session = codec.encoder_session(codec.channels, tile_frames=codec.spec.block_frames)
    parts = [session.push(pcm[:, start : start + 777]) for start in range(0, pcm.shape[1], 777)]
    assert bc.CodecTokens.concat([*parts, session.finish()]) == tokens
    player = codec.decoder_session(tile_frames=codec.spec.block_frames)
    heard = [player.push(part) for part in tokens.parts(codec.spec.block_frames)]
    assert same(np.concatenate([*heard, player.finish()], axis=1), audio)


def test_neighbours_of_any_length_change_nothing(codec, plain, audio, monkeypatch, same):
    pcm, tokens, _ = plain
    monkeypatch.setattr(codec.backend, "streams_per_batch", 4)
    short = [pcm[:, : pcm.shape[1] // 3], pcm[:, :100]]
    made = codec.encode_batch([pcm, *short], codec.sample_rate)
    assert made == [tokens, *(codec.encode(item, codec.sample_rate) for item in short)]
    for batched, alone in zip(codec.decode_batch(made), [audio, *map(codec.decode, made[1:])], strict=True):
        assert same(batched, alone)


@pytest.mark.parametrize("dtype", ["tfloat32", "float16"])
def test_less_exact_types_are_near(codec, plain, dtype, device):
    pcm, tokens, audio = plain
    other = bc.load(codec.spec.name, device=str(device), dtype=dtype)
    assert other.encode(pcm, other.sample_rate).frames == tokens.frames
    error = other.decode(tokens) - audio
    assert (error**2).sum() < 1e-3 * (audio**2).sum()
    other.unload()


def test_segments_with_norms(device):
    """As `encodec_48khz` has them, in a network of few channels."""
    torch.manual_seed(0)
    from blazen_codec_core.nn import Conv1d, TimeGroupNorm, prepare

    x, layer, norm = torch.randn(2, 300, 16), Conv1d(16, 16, 3, padding=1), TimeGroupNorm(16)
    torch.nn.init.normal_(layer.weight, std=0.2)
    wanted = norm(layer(x)).detach()
    network = torch.nn.ModuleList([layer, norm]).to(device)
    prepare(network)
    with torch.inference_mode():
        got = norm(layer(x.to(device)))
    assert (got.cpu() - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_pools_with_cuda_graphs_give_what_sessions_give(name, device, same):
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a GPU; tests/core/nn/test_graphs.py does the same with steps that are run again")
    codec, plain = (bc.load(name, device=str(device), graphs=graphs) for graphs in (True, False))
    tokens = [plain.encode(recording(plain, 0.5 + 0.2 * number), plain.sample_rate) for number in range(5)]
    with codec.decoder_pool(5) as pool:
        streams = {pool.open(): [] for _ in tokens}
        for stream, item in zip(streams, tokens, strict=True):
            stream.push(item)
            stream.finish()
        while not all(stream.ended for stream in streams):
            for stream, pcm in pool.step().items():
                streams[stream].append(pcm)
        assert pool.stats().bytes_per_bucket
    for item, parts in zip(tokens, streams.values(), strict=True):
        assert same(np.concatenate(parts, axis=1), plain.decoder_session(latency="lowest").push_last(item))
