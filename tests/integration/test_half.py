"""Half precision: the same code, near enough to float32, and as exact in pieces."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import blazen_codec_core as bc

pytestmark = pytest.mark.filterwarnings("ignore:.*on a CPU, which takes:blazen_codec_core.SlowerNotice")
HALVES = {"bfloat16": (0.75, 35.0), "float16": (0.95, 50.0)}
"""The least share of the first tokens that agree, and how many dB decoded audio is above its difference, from float32."""


@pytest.fixture(scope="module")
def speech(root):
    pcm, rate = bc.read_audio(root / "examples" / "speech.flac")
    assert rate == 24_000
    return pcm[:, : 2 * rate + 77]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["dac_tiny", "encodec_tiny", "snac_tiny"])
def test_it_is_near_float32_and_exact_in_pieces(speech, name, dtype):
    whole, half = (bc.load(name, device="cpu", dtype=kind, noise=False) for kind in ("float32", dtype))
    wanted, tokens = whole.encode(speech, 24_000), half.encode(speech, 24_000)
    least, decibels = HALVES[dtype]
    assert (tokens.codes[0] == wanted.codes[0]).mean() >= least
    audio, reference = half.decode(wanted), whole.decode(wanted)
    assert audio.dtype == np.float32
    assert 10 * np.log10((reference**2).sum() / ((audio - reference) ** 2).sum()) >= decibels
    session, player = half.encoder_session(1), half.decoder_session()
    parts = [session.push(speech[:, at : at + 1999]) for at in range(0, speech.shape[1], 1999)] + [session.finish()]
    assert bc.CodecTokens.concat(parts) == tokens
    np.testing.assert_array_equal(np.concatenate([*map(player.push, parts), player.finish()], axis=1), half.decode(tokens))


@pytest.mark.parametrize("name", ["dac_16khz", "encodec_24khz", "snac_24khz", "snac_32khz"])
def test_full_size_networks_take_any_length_and_any_pieces(codecs, name):
    half = codecs(name, dtype="bfloat16")
    for samples in (1, half.spec.hop_length + 1, 5000):
        pcm = 0.1 * np.sin(np.arange(samples, dtype=np.float32))[None]
        tokens = half.encode(pcm, half.sample_rate)
        session, player = half.encoder_session(1), half.decoder_session(tile_frames=half.spec.block_frames)
        parts = [session.push(pcm[:, at : at + 700]) for at in range(0, samples, 700)] + [session.finish()]
        assert bc.CodecTokens.concat(parts) == tokens
        heard = np.concatenate([*(player.push(part) for part in tokens.parts(half.spec.block_frames)), player.finish()], axis=1)
        np.testing.assert_allclose(heard, half.decode(tokens), atol=0.1)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_quantizer_stays_in_float32(dtype):
    network = bc.load("snac_tiny", device="cpu", dtype=dtype).backend.loaded().network
    assert {parameter.dtype for parameter in network.quantizer.parameters()} == {torch.float32}
    others = {parameter.dtype for part in (network.encoder, network.decoder) for parameter in part.parameters()}
    assert others == {getattr(torch, dtype)}


def test_scales_of_segments_are_those_of_float32(codecs):
    pcm = np.repeat(np.random.default_rng(0).standard_normal((1, 60_000)).astype(np.float32), 2, axis=0) * [[0.1], [0.01]]
    whole, half = codecs("encodec_48khz"), codecs("encodec_48khz", dtype="bfloat16")
    tokens, wanted = (codec.encode(pcm.astype(np.float32), 48_000) for codec in (half, whole))
    np.testing.assert_array_equal(tokens.scales, wanted.scales)
    assert (tokens.codes[0] == wanted.codes[0]).mean() > 0.8
    audio, reference = half.decode(wanted), whole.decode(wanted)
    assert 10 * np.log10((reference**2).sum() / ((audio - reference) ** 2).sum()) > 25


def test_the_authors_packages_are_run_in_float32_only():
    with pytest.raises(bc.DeviceUnavailable, match="dtype is bfloat16; engine='upstream' runs in float32"):
        bc.load("snac_24khz", engine="upstream", weights="random:0", dtype="bfloat16").load()


def test_a_type_that_there_is_not_is_refused(run, root):
    code, _, err = run("roundtrip", root / "examples" / "speech.flac", "-c", "snac_tiny", "--dtype", "float8")
    assert code == 6
    assert "does not run in float8; it runs in float32, tfloat32, bfloat16, float16" in err


@pytest.mark.parametrize(("dtype", "is_slower"), [("bfloat16", True), ("float16", True), ("tfloat32", False), ("float32", False)])
def test_half_precision_on_a_cpu_is_warned_of(dtype, is_slower):
    codec = bc.load("snac_tiny", device="cpu", dtype=dtype)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        codec.load()
        codec.load()
    assert [notice.category for notice in told] == [bc.SlowerNotice] * is_slower
    assert all(f"snac_tiny runs in {dtype} on a CPU" in str(notice.message) for notice in told)
    assert all("dtype='float32'" in str(notice.message) for notice in told)
