"""Batches of signals of different lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.errors import InferenceError
from blazen_codec_core.nn import (
    ELU,
    LSTM,
    Conv1d,
    ConvTranspose1d,
    Layer,
    ReflectPadding,
    Residual,
    Sequential,
    Snake,
    StreamSetup,
    prepare,
    reset_parameters,
)
from blazen_codec_core.nn.layers import blocks
from blazen_codec_core.streaming import offline_tile_frames
from blazen_codec_core.torch_backend import backend
from blazen_codec_core.torch_backend.backend import TorchCodecBackend
from blazen_codec_core.torch_backend.transfers import codes_to_host, to_device

CHANNELS = 4


def mirroring(kernel: int, stride: int, left: int, right: int) -> Conv1d:
    return Conv1d(CHANNELS, CHANNELS, kernel, stride=stride, padding=ReflectPadding(CHANNELS, left, right, stride))


LAYERS = {
    "causal": lambda: Conv1d(CHANNELS, CHANNELS, 3, dilation=2, padding=(4, 0)),
    "centred": lambda: Conv1d(CHANNELS, CHANNELS, 7, dilation=3, padding=9),
    "strided": lambda: Conv1d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
    "depthwise": lambda: Conv1d(CHANNELS, CHANNELS, 7, padding=3, groups=CHANNELS),
    "mirrored": lambda: mirroring(7, 1, 3, 3),
    "mirrored, strided": lambda: mirroring(10, 5, 5, 0),
    "transposed": lambda: ConvTranspose1d(CHANNELS, CHANNELS, 6, stride=3, crop=(2, 1)),
    "residual": lambda: blocks.residual_unit(CHANNELS, 3),
    "with a shortcut": lambda: Residual(
        CHANNELS, Sequential([ELU(), mirroring(3, 1, 2, 0), ELU(), Conv1d(CHANNELS, CHANNELS, 1)]), Conv1d(CHANNELS, CHANNELS, 1)
    ),
    "recurrent": lambda: LSTM(CHANNELS, 2),
    "down and up": lambda: Sequential(
        [
            *blocks.residual_units(CHANNELS),
            Snake(CHANNELS),
            Conv1d(CHANNELS, CHANNELS, 8, stride=4, padding=2),
            Snake(CHANNELS),
            ConvTranspose1d(CHANNELS, CHANNELS, 8, stride=4, crop=(2, 2)),
            mirroring(7, 1, 6, 0),
        ]
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(40, 90), min_size=2, max_size=4), first=st.sampled_from([0, 17, 20]), prepared=st.booleans())
def test_ragged_batch_ignores_frames_after_the_end(name, lengths, first, prepared):
    layer: Layer = LAYERS[name]()
    reset_parameters(layer, 0)
    x = torch.randn(len(lengths), max(lengths), CHANNELS, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if prepared:
            prepare(layer)
        state = layer.init_state(StreamSetup(len(lengths), x.device, lengths=tuple(lengths)))
        y = torch.cat([layer.step(x[:, :first], state, False), layer.step(x[:, first:], state, True)], dim=1)
        for row, length in enumerate(lengths):
            alone = layer(x[row : row + 1, :length])
            assert alone.shape[1] == layer.frames_out(length, True)
            assert torch.allclose(y[row : row + 1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_ragged_batch_refuses_signals_too_short_for_reflection():
    layer = mirroring(7, 1, 3, 3)
    state = layer.init_state(StreamSetup(2, torch.device("cpu"), lengths=(2, 30)))
    with pytest.raises(InferenceError, match="too short"):
        layer.step(torch.zeros(2, 30, CHANNELS), state, True)


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
@pytest.mark.parametrize(
    "seconds", [(0.02, 0.5, 0.77, 1.3, 0.1, 2.01), (1.0, 1.0, 1.0), (0.001, 0.002, 0.003)], ids=["mixed", "alike", "short"]
)
def test_batch_equals_single_items(name, seconds, monkeypatch):
    monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 8)
    codec = bc.load(name, device="cpu")
    sound = voice(max(seconds), codec.sample_rate)
    items = [sound[None, : max(1, int(codec.sample_rate * each))] for each in seconds]
    made = codec.encode_batch(items, codec.sample_rate)
    alone = [codec.encode(item, codec.sample_rate) for item in items]
    assert [tokens.frames for tokens in made] == [tokens.frames for tokens in alone]
    same = [one == other for each, own in zip(made, alone, strict=True) for one, other in zip(each.codes, own.codes, strict=True)]
    assert np.concatenate(same, axis=1).mean() > 0.995  # up to ties: a CPU's products of several signals round otherwise
    for audio, tokens in zip(codec.decode_batch(made), made, strict=True):
        assert audio.shape == (1, tokens.num_samples)
        np.testing.assert_allclose(audio, codec.decode(tokens), atol=1e-5)


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny", pytest.param("encodec_24khz", marks=pytest.mark.slow)])
@pytest.mark.parametrize("threads", [1, 3])
def test_items_of_any_lengths_on_a_cpu_equal_single_items(name, threads, monkeypatch):
    codec = bc.load(name, device="cpu", weights=None if name.endswith("_tiny") else "random:0")
    tile, rng = codec.spec.tile_frames * codec.spec.hop_length, np.random.default_rng(threads)
    lengths = [1, 500, tile // 2, tile, tile + 1, 2 * tile - 1, *rng.integers(tile // 2, 2 * tile, 5)]
    items = [0.1 * rng.standard_normal((1, length)).astype(np.float32) for length in lengths]
    alone = [codec.encode(item, codec.sample_rate) for item in items]
    monkeypatch.setattr(backend, "usable_threads", lambda: threads)
    assert codec.encode_batch(items, codec.sample_rate) == alone
    long = [tokens for tokens in alone if tokens.num_samples >= tile // 2]  # shorter ones share a tile, which rounds otherwise
    for audio, tokens in zip(codec.decode_batch(long), long, strict=True):
        assert np.array_equal(audio, codec.decode(tokens))


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
@pytest.mark.parametrize("tiles", [0, 1, 2, 3])
def test_last_piece_ends_a_session_as_finish_does(name, tiles):
    codec = bc.load(name, device="cpu")
    tile = codec.spec.tile_frames * codec.spec.hop_length
    pcm = voice(tiles + 1.0, codec.sample_rate)[None, : tiles * tile + 700 * (tiles != 1)]
    one, other = codec.encoder_session(1), codec.encoder_session(1)
    first = other.push(pcm[:, :1000])
    tokens = one.push_last(pcm)
    assert bc.CodecTokens.concat([first, other.push(pcm[:, 1000:]), other.finish()]) == tokens
    decoder, audio = codec.decoder_session(), codec.decode(tokens)
    assert np.array_equal(decoder.push_last(tokens), audio)
    with pytest.raises(bc.CodecError, match="has ended"):
        decoder.finish()
    with pytest.raises(bc.CodecError, match="has ended"):
        one.push_last(pcm)


def test_batch_outputs_do_not_share_memory(monkeypatch):
    monkeypatch.setattr(TorchCodecBackend, "streams_per_batch", 8)
    codec = bc.load("snac_tiny", device="cpu")
    tokens = codec.encode(voice(0.3, codec.sample_rate), codec.sample_rate)
    first, second = codec.decode_batch([tokens, tokens])
    first[:] = 0
    assert np.abs(second).max() > 0


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
def test_large_offline_tiles_give_the_same_result(name, monkeypatch):
    codec = bc.load(name, device="cpu")
    pcm = voice(3.0, codec.sample_rate)
    tokens = codec.encode(pcm, codec.sample_rate)
    audio = codec.decode(tokens)
    monkeypatch.setattr(TorchCodecBackend, "_max_samples_per_step", 1 << 17)
    tile = codec.spec.tile_frames
    assert offline_tile_frames(codec, 1) > tile
    assert offline_tile_frames(codec, 1) % tile == 0
    assert offline_tile_frames(codec, 1 << 20) == tile
    again = codec.encode(pcm, codec.sample_rate)
    assert min(np.mean(one == other) for one, other in zip(again.codes, tokens.codes, strict=True)) > 0.99
    np.testing.assert_allclose(codec.decode(tokens), audio, atol=1e-5)


def test_transfers_pad_and_restore_arrays():
    pieces = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full((1, 2), 7, np.float32)]
    assert to_device(pieces, 4, torch.device("cpu")).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0], [7, 7, 0, 0]]
    codes = codes_to_host([torch.tensor([[1, 2]]), torch.tensor([[3, 4, 5, 6]])])
    assert [code.tolist() for code in codes] == [[[1, 2]], [[3, 4, 5, 6]]]
    assert {code.dtype for code in codes} == {np.dtype(np.int32)}


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
def test_tfloat32_equals_float32_on_cpu(name):
    exact, allow_tf32 = (bc.load(name, device="cpu", dtype=dtype) for dtype in ("float32", "tfloat32"))
    pcm = voice(0.5, exact.sample_rate)
    assert allow_tf32.encode(pcm, allow_tf32.sample_rate) == exact.encode(pcm, exact.sample_rate)
