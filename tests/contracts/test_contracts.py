"""The contracts that every model of every plugin keeps: nothing depends on chunks, on neighbours in a batch, or on threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from blazen_codec_core.conformance.signals import pieces, recording
from ties import count_differing

import blazen_codec_core as bc

SNAC = ["snac_24khz", "snac_32khz", "snac_44khz", "snac_tiny"]
ENCODEC = ["encodec_24khz", "encodec_48khz"]
DAC = ["dac_16khz", "dac_24khz", "dac_44khz", "dac_44khz_16kbps"]
ALIKE = ("dac_24khz", "dac_44khz", "dac_44khz_16kbps", "snac_44khz")
"""Models that differ from the one before them in numbers only."""


def parameters(*names: str) -> list:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in names]


NAMES = [*SNAC, *ENCODEC, *DAC]
MODELS = parameters(*NAMES)
IN_TILES = parameters(*(name for name in NAMES if name != "encodec_48khz"))
LARGE = ("snac_32khz", "snac_44khz", *DAC)
BATCHES = [
    pytest.param(*of.values, together, marks=of.marks)
    for of in MODELS
    for together in ((5,) if of.values[0] in LARGE else (1, 5, 32))
]
CHUNKS = [480, 12_345, [1, 7, 480, 12_345]]


def through_session(codec: bc.DynCodecProvider, pcm: np.ndarray, cuts: list[slice], **options) -> list[bc.CodecTokens]:
    session = codec.encoder_session(pcm.shape[0], **options)
    return [*(session.push(pcm[:, cut]) for cut in cuts), session.finish()]


def played(codec: bc.DynCodecProvider, parts, **options) -> np.ndarray:
    session = codec.decoder_session(**options)
    return np.concatenate([*(session.push(part) for part in parts), session.finish()], axis=1)


def long(spec: bc.CodecSpec, seconds: float) -> float:
    """Seconds of audio to try a model on: less for the large ones, but never less than two tiles and something."""
    tiles = 2.4 * spec.tile_frames * spec.hop_length / spec.sample_rate
    return max(tiles, seconds / 2) if spec.family == "dac" else seconds


def rounding(spec: bc.CodecSpec) -> float:
    """What another order of sums may change in the audio. Random codebooks of DAC, of which there are up to 32, add up to loud
    latents."""
    return 3e-5 if spec.family == "dac" else 1e-5


def unit(spec: bc.CodecSpec) -> int:
    """The fewest frames that tokens can be cut at."""
    return spec.tile_frames if spec.segment else spec.strides[0]


def frames_with_ties(codec: bc.DynCodecProvider, pcm: np.ndarray, a: bc.CodecTokens, b: bc.CodecTokens) -> int:
    """How many frames hold a tie that rounding broke; nothing else may differ."""
    count_differing(codec, pcm, a, b)
    return int(np.logical_or.reduce([np.repeat(x != y, s, 1) for x, y, s in zip(a.codes, b.codes, a.strides, strict=True)]).sum())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_chunks_change_nothing(codecs, name, chunk):
    codec = codecs(name)
    pcm = recording(codec.spec, long(codec.spec, 2.1))
    whole = codec.encode(pcm, codec.sample_rate)
    parts = through_session(codec, pcm, pieces(pcm.shape[1], chunk))
    assert bc.CodecTokens.concat(parts) == whole
    assert np.array_equal(played(codec, parts), codec.decode(whole))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 7])
def test_the_smallest_chunks_change_nothing(codecs, name, chunk):
    codec = codecs(name)
    pcm = recording(codec.spec, 0.4)
    whole = codec.encode(pcm, codec.sample_rate)
    assert bc.CodecTokens.concat(through_session(codec, pcm, pieces(pcm.shape[1], chunk))) == whole
    audio = codec.decode(whole)
    for frames in (unit(codec.spec), unit(codec.spec) * 7):
        assert np.array_equal(played(codec, whole.parts(frames)), audio)


@pytest.mark.parametrize("name", ["snac_tiny", *ENCODEC])
@settings(max_examples=20)
@given(data=st.data())
def test_any_chunks_change_nothing(codecs, name, data):
    codec = codecs(name)
    length = data.draw(st.integers(1, 2 * codec.sample_rate))
    pcm = recording(codec.spec, 2, channels=data.draw(st.sampled_from([1, 2])) if codec.channels == 1 else None)[:, :length]
    books = data.draw(st.sampled_from(codec.spec.usable_codebooks))
    whole = codec.encode(pcm, codec.sample_rate, num_codebooks=books)
    assert whole.num_codebooks == books
    sizes = data.draw(st.lists(st.integers(1, 50_000), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 500))
    parts = through_session(codec, pcm, pieces(length, sizes), num_codebooks=books)
    assert bc.CodecTokens.concat(parts) == whole
    audio = codec.decode(whole)
    assert audio.shape == pcm.shape
    assert np.array_equal(played(codec, parts), audio)


@pytest.mark.parametrize("name", IN_TILES)
def test_other_tiles_change_nothing_but_ties(codecs, name):
    codec = codecs(name)
    pcm = recording(codec.spec, long(codec.spec, 1.5))
    whole = codec.encode(pcm, codec.sample_rate)
    audio = codec.decode(whole)
    for tile in (codec.spec.block_frames, codec.spec.block_frames * 3):
        tokens = bc.CodecTokens.concat(through_session(codec, pcm, [slice(None)], tile_frames=tile))
        assert frames_with_ties(codec, pcm, tokens, whole) <= codec.spec.strides[0]
        assert np.abs(played(codec, [whole], tile_frames=tile) - audio).max() < rounding(codec.spec)


@pytest.mark.parametrize(("name", "together"), BATCHES)
def test_a_batch_changes_nothing(codecs, monkeypatch, name, together):
    codec = codecs(name)
    spec, rate = codec.spec, codec.sample_rate
    monkeypatch.setattr(type(codec._handle.backend), "batch_streams", {"cpu": together})
    block, tile = spec.block_frames * spec.hop_length, spec.tile_frames * spec.hop_length
    lengths = [1, block - 1, block, block + 1, tile, tile + 1, 2 * tile, tile + tile // 3]
    items = [recording(spec, 2.4, seed)[:, :length] for seed, length in enumerate(lengths)]
    if spec.channels == 1:
        items.append(recording(spec, 0.3, 8, channels=2))
    monkeypatch.setattr(type(codec._handle.backend), "batch_streams", {"cpu": 1})
    alone = [codec.encode(item, rate) for item in items]
    audio = [codec.decode(tokens) for tokens in alone]
    monkeypatch.setattr(type(codec._handle.backend), "batch_streams", {"cpu": together})
    for item, a, b in zip(items, alone, codec.encode_batch(items, rate), strict=True):
        assert frames_with_ties(codec, item, a, b) <= (0 if together == 1 else spec.strides[0])
        assert a.scales is None or np.allclose(a.scales, b.scales, rtol=1e-6, atol=0)
    for tokens, wanted, made in zip(alone, audio, codec.decode_batch(alone), strict=True):
        assert made.shape == (tokens.channels, tokens.num_samples)
        assert np.abs(made - wanted).max() < 1e-5
    assert codec.encode_batch([], rate) == codec.decode_batch([]) == []


@pytest.mark.parametrize("name", IN_TILES)
def test_the_channels_of_a_recording_are_streams(codecs, name):
    codec = codecs(name)
    both = recording(codec.spec, 0.5, channels=2)
    tokens = codec.encode(both, codec.sample_rate)
    assert (tokens.streams, tokens.channels) == (2, 2)
    for number, channel in enumerate(both):
        assert codec.encode(channel, codec.sample_rate).flat().tolist() == tokens.stream(number).flat().tolist()
    assert codec.decode(tokens).shape == both.shape


@pytest.mark.parametrize("name", IN_TILES)
@pytest.mark.parametrize("books", ["all", "default"])
def test_the_flat_form_there_and_back(codecs, name, books):
    codec = codecs(name)
    count = codec.num_codebooks if books == "all" else codec.spec.used_codebooks
    pcm = recording(codec.spec, 0.2)
    tokens = codec.encode(pcm, codec.sample_rate, num_codebooks=count)
    flat = tokens.flat()
    if books == "all":
        assert np.array_equal(codec.encode_pcm(pcm[0], codec.sample_rate), flat)
    audio = codec.decode_tokens(flat, count)
    assert audio.shape == (tokens.frames * codec.spec.hop_length,)
    assert np.array_equal(audio[: pcm.shape[1]], codec.decode(tokens)[0])
    with pytest.raises(bc.InvalidTokens, match="multiple of"):
        codec.decode_tokens(flat[:-1], count)


@pytest.mark.parametrize("name", MODELS)
def test_sessions_are_as_late_as_they_say(codecs, name):
    """Fed in the smallest pieces, the first tokens come when `first_samples` are in, and none is later than `latency_samples`."""
    codec = codecs(name)
    spec = codec.spec
    pcm = recording(spec, long(spec, 2.2))
    session = codec.encoder_session(pcm.shape[0], tile_frames=None if spec.segment else spec.block_frames)
    covered = worst = 0
    first = None
    step = spec.hop_length // 4
    for start in range(0, pcm.shape[1] - step, step):
        part = session.push(pcm[:, start : start + step])
        covered += part.num_samples
        worst = max(worst, start + step - covered)
        if covered and first is None:
            first = start + step
    assert first - step < session.first_samples <= first
    assert session.latency_samples - step < worst <= session.latency_samples


MEMORY = """
import ctypes, sys, psutil, numpy as np, blazen_codec_core as bc
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # of glibc: gives back what the heap holds and nobody uses
codec = bc.load(sys.argv[1], weights="random:0", device="cpu")
process = psutil.Process()
session, player = codec.encoder_session(), codec.decoder_session()
second = (np.random.default_rng(0).standard_normal((codec.channels, codec.sample_rate)) * 0.1).astype(np.float32)
seen, used, parts = [], [], []
for number in range(6):
    for _ in range(int(sys.argv[2])):
        parts.append(session.push(second))
        player.push(parts[-1])
    seen.append(process.memory_info().rss / 2**20)
    if number % 3 == 2:
        trim(0)
        used.append(process.memory_info().rss / 2**20)
print(*seen, *used)
"""


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("snac_tiny", 25), ("encodec_24khz", 25), ("encodec_48khz", 12), pytest.param("dac_16khz", 10, marks=pytest.mark.slow)],
)
def test_memory_does_not_grow_through_sessions(name, seconds):
    command = [sys.executable, "-c", MEMORY, name, str(seconds)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads have heaps of their own, which come and go
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    *after, half_way, at_the_end = (float(value) for value in run.stdout.split())
    print(
        f"{name}: RSS after each {seconds} s, MiB:",
        *(round(value) for value in after),
        f"in use: {half_way:.1f} {at_the_end:.1f}",
    )
    assert at_the_end - half_way < (4 if sys.platform == "linux" else 32)
    assert max(after[3:]) - max(after[:3]) < 96  # the heap's own ups and downs, of which 50 have been seen
