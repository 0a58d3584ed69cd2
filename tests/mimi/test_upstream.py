"""Ours against the authors' package and against transformers, with the same seeded random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording
from blazen_codec_core.torch_backend.upstream import stand_in
from blazen_codec_mimi.specs import SPECS
from tests.helpers.narrow_mimi import FROM_WEIGHTS
from tests.helpers.quantizer_ties import count_differing
from tests.helpers.upstream_roundtrip import there_and_back

SPEC = SPECS[0]
HOP = SPEC.hop_length


def hold(codecs, name: str, recordings: list[np.ndarray], **options) -> None:
    """Compare tokens and audio of recordings with the authors'."""
    made = there_and_back(codecs, name, recordings, {"num_codebooks": 32}, **options)
    ours, total, different = codecs(name, **options), 0, 0
    for pcm, (reference, wanted) in zip(recordings, made, strict=True):
        mine = ours.encode(pcm, ours.sample_rate, num_codebooks=32)
        total += sum(code.size for code in mine.codes)
        different += count_differing(ours, pcm, mine, reference)
        audio = ours.decode(reference)
        assert audio.shape == wanted.shape == pcm.shape
        assert np.abs(wanted).max() > 0.01, "the decoder says nothing; the comparison would be empty"
        assert np.abs(audio - wanted).max() < 1e-4
    assert different <= 1e-4 * total


@pytest.mark.slow
def test_tokens_and_audio_are_the_authors(codecs):
    hold(codecs, "mimi", [recording(SPEC, 2)[:, :length] for length in (1, HOP, HOP + 1, 35_000)])


@pytest.mark.slow
def test_beyond_the_window_of_attention_tokens_and_audio_are_the_authors(codecs):
    hold(codecs, "mimi", [recording(SPEC, 24), recording(SPEC, 3, seed=1, channels=2)])


@pytest.mark.parametrize("frames", [1, 15, 16, 100])
def test_a_narrow_model_beyond_its_window(codecs, narrow, frames):
    hold(codecs, "mimi", [recording(SPEC, 9)[:, : frames * HOP - 5]], weights=narrow, **FROM_WEIGHTS)


@pytest.mark.parametrize("books", [1, 2, 8, 32])
def test_any_number_of_codebooks_is_a_prefix_and_decodes_as_the_authors(codecs, narrow, books):
    ours, theirs = (codecs("mimi", weights=narrow, engine=engine, **FROM_WEIGHTS) for engine in ("native", "upstream"))
    pcm = recording(SPEC, 1)
    tokens, every = (ours.encode(pcm, 24_000, num_codebooks=count) for count in (books, 32))
    assert tokens.num_codebooks == books
    reference = theirs.encode(pcm, 24_000, num_codebooks=books)
    for code, wanted, authors in zip(tokens.codes, every.codes, reference.codes, strict=False):
        np.testing.assert_array_equal(code, wanted)
        np.testing.assert_array_equal(code, authors)
    assert np.abs(ours.decode(tokens) - theirs.decode(tokens)).max() < 1e-4


def transformers_model(folder: Path):
    """transformers' model with the weights in a folder."""
    with stand_in("torchaudio"):  # which is imported where it is found, and never used
        from transformers import MimiModel

    return MimiModel.from_pretrained(folder, local_files_only=True).eval()


@pytest.mark.parametrize(("size", "seconds"), [("narrow", 9.6), pytest.param("full", 12.8, marks=pytest.mark.slow)])
def test_tokens_and_audio_are_those_of_transformers(codecs, narrow, tmp_path, size, seconds):
    codec, folder = codecs("mimi", weights=narrow, **FROM_WEIGHTS), narrow
    if size == "full":
        codec, folder = codecs("mimi"), tmp_path
        codec.module.save_weights(folder)
    model, pcm = transformers_model(folder), recording(SPEC, seconds)
    assert pcm.shape[1] % HOP == 0
    tokens = codec.encode(pcm, 24_000, num_codebooks=32)
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(pcm)[None]).audio_codes
        wanted = model.decode(codes).audio_values[0].numpy()
    theirs = bc.CodecTokens.from_codes(codec.spec, list(codes[0, :, None].numpy()), num_samples=pcm.shape[1])
    assert count_differing(codec, pcm, tokens, theirs) <= 1e-4 * codes.numel()
    assert np.abs(codec.decode(theirs) - wanted).max() < 1e-4


def test_the_last_frame_is_padded_with_silence_as_the_authors_pad_it(codecs, narrow):
    """transformers pads within each layer instead, so what it gives for a last partial frame is another signal's."""
    codec = codecs("mimi", weights=narrow, **FROM_WEIGHTS)
    pcm = recording(SPEC, 1)[:, : 5 * HOP + 700]
    padded = np.pad(pcm, ((0, 0), (0, HOP - 700)))
    tokens, whole = (codec.encode(signal, 24_000, num_codebooks=32) for signal in (pcm, padded))
    for code, wanted in zip(tokens.codes, whole.codes, strict=True):
        np.testing.assert_array_equal(code, wanted)
    with torch.inference_mode():
        codes = transformers_model(narrow).encode(torch.from_numpy(pcm)[None]).audio_codes[0].numpy()
    ours = np.concatenate(tokens.codes)
    assert codes.shape == ours.shape
    np.testing.assert_array_equal(codes[:, :5], ours[:, :5])
    assert (codes[:, 5] != ours[:, 5]).any()


def test_names_rates_and_numbers_of_codebooks():
    codec = bc.load("kyutai/mimi", weights="random:0")
    assert codec.spec is SPEC
    assert codec.id == "mimi:kyutai/mimi"
    assert (codec.sample_rate, codec.num_codebooks, codec.frame_rate, HOP) == (24_000, 32, 12.5, 1920)
    assert SPEC.used_codebooks == 8
    assert SPEC.bandwidth == pytest.approx(1.1)
    assert SPEC.usable_codebooks == tuple(range(1, 33))


def test_a_frame_is_out_as_soon_as_it_is_in(codecs, narrow):
    codec = codecs("mimi", weights=narrow, **FROM_WEIGHTS)
    session, pcm = codec.encoder_session(latency="lowest"), recording(SPEC, 1)
    assert (session.first_samples, session.latency_samples) == (HOP, HOP - 1)
    decoder = codec.decoder_session(latency="lowest")
    for start in range(0, 10 * HOP, HOP):
        tokens = session.push(pcm[:, start : start + HOP])
        assert tokens.frames == 1
        assert decoder.push(tokens).shape[1] == HOP
