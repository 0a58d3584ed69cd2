"""Codecs with attention and narrow layers, in any chunks, tiles, batches, pools and graphs; full ones are beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance.exactness import decode_chunks, encode_chunks
from blazen_codec_core.conformance.signals import pieces, recording
from tests.helpers import narrow_mimi, narrow_qwen3tts
from tests.helpers.pretended_graphs import pretend_graphs

FROM_WEIGHTS = {"architecture": "from-weights", "device": "cpu"}
MODELS = {"mimi": narrow_mimi, "qwen3tts_12hz": narrow_qwen3tts}


@pytest.fixture(scope="module", params=MODELS)
def weights(request, tmp_path_factory):
    """Name of a model, and a folder with random weights of it with narrow layers."""
    return request.param, MODELS[request.param].write_narrow(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def codec(codecs, weights):
    name, folder = weights
    return codecs(name, weights=folder, **FROM_WEIGHTS)


@pytest.mark.parametrize("sizes", [[1], [480], [1920], [1009, 7919]], ids=str)
def test_chunks_change_no_bit(codec, sizes):
    pcm = recording(codec.spec, 0.2 if sizes == [1] else 4)
    whole = codec.encode(pcm, 24_000)
    parts = encode_chunks(codec, pcm, pieces(pcm.shape[1], sizes))
    assert bc.CodecTokens.concat(parts) == whole
    assert np.array_equal(decode_chunks(codec, parts), codec.decode(whole))


@pytest.mark.parametrize("frames", [1, 2, 3, 12])
def test_tiles_of_any_length_change_no_token(codec, frames):
    pcm = recording(codec.spec, 6, seed=3)
    whole = codec.encode(pcm, 24_000)
    with codec.encoder_session(tile_frames=frames) as session:
        tokens = bc.CodecTokens.concat([session.push(pcm), session.finish()])
    assert [np.mean(a == b) for a, b in zip(tokens.codes, whole.codes, strict=True)] == [1.0] * codec.spec.used_codebooks
    with codec.decoder_session(tile_frames=frames) as session:
        audio = np.concatenate([session.push(whole), session.finish()], axis=1)
    np.testing.assert_allclose(audio[:, : pcm.shape[1]], codec.decode(whole), atol=1e-5)


@settings(max_examples=6)
@given(lengths=st.lists(st.integers(1, 60_000), min_size=2, max_size=5))
def test_batches_are_their_items(codec, lengths):
    items = [recording(codec.spec, 3, seed=number)[:, :length] for number, length in enumerate(lengths)]
    tokens = codec.encode_batch(items, 24_000)
    assert tokens == [codec.encode(item, 24_000) for item in items]
    for audio, one in zip(codec.decode_batch(tokens), tokens, strict=True):
        assert np.array_equal(audio, codec.decode(one))


def test_streams_of_a_pool_are_what_each_is_alone(codec):
    signals = [recording(codec.spec, 4, seed=seed)[:, : 40_000 + 9000 * seed] for seed in range(4)]
    pool, got = codec.encoder_pool(max_streams=4), {}
    streams = []
    for step in range(60):
        if step % 5 == 0 and len(streams) < len(signals):
            streams.append(pool.open())
            got[streams[-1]] = []
        for number, stream in enumerate(streams):
            start, signal = (step - 5 * number) * 4000, signals[number]
            if start < signal.shape[1]:
                stream.push(signal[:, start : start + 4000])
                if start + 4000 >= signal.shape[1]:
                    stream.finish()
        for stream, tokens in pool.step().items():
            got[stream].append(tokens)
    for stream, signal in zip(streams, signals, strict=True):
        assert bc.CodecTokens.concat(got[stream]) == codec.encode(signal, 24_000)


def test_steps_in_graphs_change_no_bit(codec, codecs, weights, monkeypatch):
    """Ring buffers and positions are tensors of the state, which the steps of a graph update in place."""
    graphs = pretend_graphs(monkeypatch)
    name, folder = weights
    plain, codec = codec, codecs(name, weights=folder, graphs=True, **FROM_WEIGHTS)
    pcm = recording(codec.spec, 6)
    tokens = plain.encode(pcm, 24_000)
    for each in (plain, codec):
        with each.encoder_session(tile_frames=1) as session:
            chunks = np.split(pcm, range(5000, pcm.shape[1], 5000), axis=1)
            assert bc.CodecTokens.concat([*map(session.push, chunks), session.finish()]) == tokens
    heard = []
    for each in (plain, codec):
        with each.decoder_pool(3, tile_frames=2) as pool:
            streams = [pool.open() for _ in range(3)]
            parts = {stream: [] for stream in streams}
            for count, part in enumerate(tokens.parts(3)):
                for stream in streams[: 1 + count // 5]:  # the others begin later
                    if not stream.ended:
                        stream.push(part)
                for stream, audio in pool.step().items():
                    parts[stream].append(audio)
            heard.append([np.concatenate(parts[stream], axis=1) for stream in streams])
    assert all(map(np.array_equal, *heard))
    assert graphs.played > 60
