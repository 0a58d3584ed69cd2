"""Sessions and pools that take and give tensors give what those of arrays give."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from tests.helpers.pretended_graphs import pretend_graphs
from tests.helpers.processors import blocks

CODECS = ("snac_tiny", "dac_tiny")


@pytest.fixture(params=[False, True], ids=["plain", "graphs"])
def graphs(request, monkeypatch):
    pretend_graphs(monkeypatch)
    return request.param


def recording(codec, seconds: float, channels: int = 1) -> np.ndarray:
    samples = int(seconds * codec.sample_rate)
    return (0.1 * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


def joined(parts):
    """Parts of one signal as one."""
    codes = tuple(torch.cat(codes, 1) for codes in zip(*parts, strict=True))
    lengths = tuple(map(sum, zip(*(part.lengths for part in parts), strict=True)))
    return dataclasses.replace(parts[0], codes=codes, lengths=lengths)


def is_own(x: torch.Tensor) -> bool:
    """Tell whether a caller may write to a tensor."""
    return not x.is_inference() and not x.requires_grad


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("channels", [1, 2])
def test_sessions(name, channels, graphs):
    plain, codec = bc.load(name, device="cpu"), bc.load(name, device="cpu", graphs=graphs)
    pcm, tile = recording(codec, 1.5, channels), 4 * codec.spec.block_frames
    tokens = plain.encoder_session(channels, tile_frames=tile).push_last(pcm)
    audio = plain.decoder_session(tile_frames=tile).push_last(tokens)
    for given in (torch.from_numpy(pcm).requires_grad_(), torch.from_numpy(pcm).double(), pcm):
        session = codec.encoder_session(channels, tile_frames=tile, as_tensors=True)
        cuts = [0, 700, 701, 15_000, pcm.shape[1]]
        parts = [session.push(given[:, a:b]) for a, b in pairwise(cuts)]
        parts.append(session.finish())
        assert all(is_own(code) for part in parts for code in part)
        assert joined(parts).to_tokens() == [tokens]
    session = codec.decoder_session(tile_frames=tile, as_tensors=True)
    heard = [*map(session.push, parts), session.finish()]
    assert all(map(is_own, heard))
    assert np.array_equal(torch.cat(heard, 1).numpy(), audio)
    whole = codec.decoder_session(tile_frames=tile, as_tensors=True).push_last(tokens)
    assert np.array_equal(whole.numpy(), audio)


@pytest.mark.slow
@blocks
@pytest.mark.parametrize("name", CODECS)
def test_pools(name, graphs):
    plain, codec = bc.load(name, device="cpu"), bc.load(name, device="cpu", graphs=graphs)
    pcm, tile = recording(codec, 1.2), 2 * codec.spec.block_frames
    lengths = [pcm.shape[1], 5000, 12_345]
    tokens = [plain.encoder_session(tile_frames=tile).push_last(pcm[:, :length]) for length in lengths]
    for given in (torch.from_numpy(pcm).requires_grad_(), torch.from_numpy(pcm[0]), pcm):
        pushes = [[given[..., :700], given[..., 700:length]] for length in lengths]
        made = outputs(codec.encoder_pool(3, tile_frames=tile, as_tensors=True), pushes)
        assert all(is_own(code) for parts in made for part in parts for code in part)
        assert [joined(parts).to_tokens()[0] for parts in made] == tokens
    for given in (made, [[*parts[:1], joined(parts[1:])] for parts in made], [[item] for item in tokens]):
        heard = outputs(codec.decoder_pool(3, tile_frames=tile, as_tensors=True), given)
        for parts, item in zip(heard, tokens, strict=True):
            assert all(map(is_own, parts))
            audio = plain.decoder_session(tile_frames=tile).push_last(item)
            assert np.array_equal(torch.cat(parts, 1).numpy(), audio)


def outputs(pool, pushes):
    """Outputs of streams, each pushed at once."""
    streams = [pool.open() for _ in pushes]
    for stream, parts in zip(streams, pushes, strict=True):
        for part in parts:
            stream.push(part)
        stream.finish()
    made = {stream: [] for stream in streams}
    while not all(stream.ended for stream in streams):
        for stream, output in pool.step().items():
            made[stream].append(output)
    return list(made.values())


def openers(codec, **options):
    """What opens an encoder and a decoder stream."""
    return [
        lambda: codec.encoder_session(**options),
        lambda: codec.encoder_pool(**options).open(),
        lambda: codec.decoder_session(**options),
        lambda: codec.decoder_pool(**options).open(),
    ]


def test_audio_that_does_not_fit():
    codec = bc.load("snac_tiny", device="cpu")
    pcm = torch.from_numpy(recording(codec, 0.3))
    for wrong in (pcm.to(torch.int16), torch.cat([pcm, pcm]), pcm * torch.nan, 1e9 * pcm, pcm[None], pcm[0, 0], "audio"):
        for opened in openers(codec, as_tensors=True)[:2]:
            with pytest.raises(bc.InvalidInput):
                opened().push(wrong)


def test_tokens_that_do_not_fit():
    codec, other = bc.load("snac_tiny", device="cpu"), bc.load("dac_tiny", device="cpu")
    pcm = torch.from_numpy(recording(codec, 0.3))
    tokens = codec.encode(pcm, codec.sample_rate, as_tensors=True)
    for opened in openers(codec)[2:]:
        with pytest.raises(bc.InvalidTokens, match="TensorTokens"):
            opened().push(tokens)
    for wrong, words in [
        (other.encode(pcm, codec.sample_rate, as_tensors=True), "dac"),
        (dataclasses.replace(tokens, codes=tuple(code + 10_000 for code in tokens)), "expected 0 to"),
        (codec.encode(torch.stack([pcm, pcm]), codec.sample_rate, as_tensors=True), "batch"),
        (dataclasses.replace(tokens, codes=tuple(code[0] for code in tokens)), "expected integers"),
        (dataclasses.replace(tokens, codes=tokens.codes[:1]), "codebooks"),
        (dataclasses.replace(tokens, lengths=(10**6,)), "num_samples"),
        ("tokens", "str"),
    ]:
        for opened in openers(codec, as_tensors=True)[2:]:
            with pytest.raises(bc.InvalidTokens, match=words):
                opened().push(wrong)
    stereo = codec.encode(torch.cat([pcm, pcm]), codec.sample_rate, as_tensors=True)
    with pytest.raises(bc.InvalidTokens, match="2 streams"):
        codec.decoder_pool(as_tensors=True).open().push(stereo)


def test_codecs_in_segments_give_arrays_only():
    codec = bc.load("encodec_48khz", device="cpu", weights="random:0")
    for opened in openers(codec, as_tensors=True):
        with pytest.raises(bc.NotYetImplemented, match="as_tensors"):
            opened()
