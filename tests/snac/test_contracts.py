"""The four contracts, for every SNAC model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import pieces, voice

import blazen_codec_core as bc

MODELS = ["snac_24khz", "snac_32khz", "snac_44khz", "snac_tiny"]
CHUNKS = [480, 12_345, [1, 7, 480, 12_345]]


def through_session(codec: bc.DynCodecProvider, pcm: np.ndarray, cuts: list[slice], **options) -> list[bc.CodecTokens]:
    session = codec.encoder_session(pcm.shape[0], **options)
    return [*(session.push(pcm[:, cut]) for cut in cuts), session.finish()]


def played(codec: bc.DynCodecProvider, parts, **options) -> np.ndarray:
    session = codec.decoder_session(**options)
    return np.concatenate([*(session.push(part) for part in parts), session.finish()], axis=1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_chunks_change_nothing(codecs, name, chunk):
    codec = codecs(name)
    pcm = voice(2.1, codec.sample_rate)[None]
    whole = codec.encode(pcm, codec.sample_rate)
    parts = through_session(codec, pcm, pieces(pcm.shape[1], chunk))
    assert bc.CodecTokens.concat(parts) == whole
    assert np.array_equal(played(codec, parts), codec.decode(whole))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 7])
def test_the_smallest_chunks_change_nothing(codecs, name, chunk):
    codec = codecs(name)
    pcm = voice(0.4, codec.sample_rate)[None]
    whole = codec.encode(pcm, codec.sample_rate)
    assert bc.CodecTokens.concat(through_session(codec, pcm, pieces(pcm.shape[1], chunk))) == whole
    audio = codec.decode(whole)
    for frames in (codec.spec.strides[0], codec.spec.strides[0] * 7):
        assert np.array_equal(played(codec, whole.parts(frames)), audio)


@settings(max_examples=25)
@given(data=st.data(), length=st.integers(1, 60_000), channels=st.integers(1, 2))
def test_any_chunks_change_nothing(codecs, data, length, channels):
    codec = codecs("snac_tiny")
    pcm = np.stack([voice(2.5, 24_000, seed)[:length] for seed in range(channels)])
    whole = codec.encode(pcm, 24_000)
    sizes = data.draw(st.lists(st.integers(1, 30_000), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 500))
    parts = through_session(codec, pcm, pieces(length, sizes))
    assert bc.CodecTokens.concat(parts) == whole
    audio = codec.decode(whole)
    assert audio.shape == (channels, length)
    assert np.array_equal(played(codec, parts), audio)


@pytest.mark.parametrize("name", MODELS)
def test_other_tiles_change_nothing_but_ties(codecs, name):
    codec = codecs(name)
    pcm = voice(1.5, codec.sample_rate)[None]
    whole = codec.encode(pcm, codec.sample_rate)
    audio = codec.decode(whole)
    for tile in (codec.spec.block_frames, codec.spec.block_frames * 3):
        tokens = bc.CodecTokens.concat(through_session(codec, pcm, [slice(None)], tile_frames=tile))
        differing = sum(int((a != b).sum()) for a, b in zip(tokens.codes, whole.codes, strict=True))
        assert differing <= 1e-4 * sum(code.size for code in whole.codes)
        assert np.abs(played(codec, [whole], tile_frames=tile) - audio).max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("together", [1, 5, 32])
def test_a_batch_changes_nothing(codecs, monkeypatch, name, together):
    codec = codecs(name)
    backend = codec._handle.backend
    monkeypatch.setattr(type(backend), "batch_streams", {"cpu": together})
    rate, block = codec.sample_rate, codec.spec.block_frames * codec.spec.hop_length
    tile = codec.spec.tile_frames * codec.spec.hop_length
    lengths = [1, block - 1, block, block + 1, tile, tile + 1, 2 * tile, 30_001]
    items = [voice(2, rate, seed)[:length] for seed, length in enumerate(lengths)]
    items.append(np.stack([voice(0.3, rate, 8), voice(0.3, rate, 9)]))
    alone = [codec.encode(item, rate) for item in items]
    batch = codec.encode_batch(items, rate)
    for a, b in zip(alone, batch, strict=True):
        differing = sum(int((x != y).sum()) for x, y in zip(a.codes, b.codes, strict=True))
        assert differing <= (0 if together == 1 else 1e-4 * sum(code.size for code in a.codes))
    for tokens, audio in zip(alone, codec.decode_batch(alone), strict=True):
        assert audio.shape == (tokens.channels, tokens.num_samples)
        assert np.abs(audio - codec.decode(tokens)).max() < 1e-5
    assert codec.encode_batch([], rate) == codec.decode_batch([]) == []


@pytest.mark.parametrize("name", MODELS)
def test_the_channels_of_a_recording_are_streams(codecs, name):
    codec = codecs(name)
    left, right = voice(0.5, codec.sample_rate, 1), voice(0.5, codec.sample_rate, 2)
    both = codec.encode(np.stack([left, right]), codec.sample_rate)
    assert (both.streams, both.channels) == (2, 2)
    for number, channel in enumerate((left, right)):
        assert codec.encode(channel, codec.sample_rate).flat().tolist() == both.stream(number).flat().tolist()
    assert codec.decode(both).shape == (2, left.size)


class TestNoise:
    def test_decoding_is_reproducible(self, codecs):
        tokens = codecs("snac_24khz").encode(voice(0.5, 24_000), 24_000)
        first = codecs("snac_24khz").decode(tokens)
        assert np.array_equal(first, codecs("snac_24khz").decode(tokens))
        assert np.array_equal(first, bc.load("snac_24khz", weights="random:0", device="cpu").decode(tokens))

    def test_the_seed_decides(self, codecs):
        tokens = codecs("snac_tiny").encode(voice(0.5, 24_000), 24_000)
        first, second = (codecs("snac_tiny", noise_seed=seed).decode(tokens) for seed in (1, 2))
        assert not np.array_equal(first, second)

    def test_no_seed_is_a_fresh_one_every_time(self, codecs):
        codec = codecs("snac_tiny", noise_seed=None)
        tokens = codec.encode(voice(0.5, 24_000), 24_000)
        assert not np.array_equal(codec.decode(tokens), codec.decode(tokens))


def test_attention_decodes_whole_windows_only(codecs):
    codec = codecs("snac_32khz")
    short = bc.CodecTokens.from_codes(codec.spec, [np.zeros(8 // s, int) for s in codec.spec.strides])
    with pytest.raises(bc.InvalidTokens, match="whole blocks of 32 frames; there are 8"):
        codec.decode(short)
    player = codec.decoder_session()
    player.push(short)
    with pytest.raises(bc.InvalidTokens, match="whole blocks"):
        player.finish()


@pytest.mark.parametrize(("name", "step"), [("snac_24khz", 7), ("snac_32khz", 15), ("snac_44khz", 15)])
def test_the_flat_form_has_the_seeds_rules(codecs, name, step):
    codec = codecs(name)
    flat = codec.encode_pcm(voice(0.2, codec.sample_rate), codec.sample_rate)
    assert flat.size % step == 0
    audio = codec.decode_tokens(flat, codec.num_codebooks)
    assert audio.shape == (flat.size // step * codec.spec.strides[0] * codec.spec.hop_length,)
    with pytest.raises(bc.InvalidTokens, match=f"multiple of {step}"):
        codec.decode_tokens(flat[:-1], codec.num_codebooks)


MEMORY = """
import sys, psutil, numpy as np, blazen_codec_core as bc
codec = bc.load("snac_tiny", weights="random:0", device="cpu")
process = psutil.Process()
session, player = codec.encoder_session(), codec.decoder_session()
second = (np.random.default_rng(0).standard_normal(24_000) * 0.1).astype(np.float32)
seen, parts = [], []
for minute in range(10):
    for _ in range(60):
        parts.append(session.push(second))
        player.push(parts[-1])
    seen.append(process.memory_info().rss / 2**20)
print(*seen)
"""


def test_memory_does_not_grow_through_sessions():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    after = [float(value) for value in run.stdout.split()]
    print("RSS after each minute, MiB:", *(round(value) for value in after))
    assert max(after[1:]) - after[1] < 8
