"""Ours against the authors' package, at full size with the same seeded random weights."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording
from blazen_codec_encodec.specs import SPECS
from tests.helpers.quantizer_ties import count_differing

BY_NAME = {spec.name: spec for spec in SPECS}
CASES = [
    pytest.param(spec.name, bandwidth, streams, marks=() if bandwidth == spec.bandwidth else pytest.mark.slow)
    for spec in SPECS
    for bandwidth in sorted({min(spec.bandwidths), spec.bandwidth, max(spec.bandwidths)})
    for streams in ((1, 2) if spec.channels == 1 and bandwidth == spec.bandwidth else (1,))
]


def lengths(spec: bc.CodecSpec, long: bool) -> list[int]:
    rate, hop = spec.sample_rate, spec.hop_length
    return [1, hop - 1, hop, rate + 1, round((2.37 if long else 1.37) * rate)]


@pytest.mark.parametrize(("name", "bandwidth", "streams"), CASES)
def test_tokens_and_audio_are_the_authors(codecs, name, bandwidth, streams):
    ours, theirs = codecs(name), codecs(name, engine="upstream")
    spec = ours.spec
    total = different = 0
    worst = 0.0
    for length in lengths(spec, long=bandwidth == spec.bandwidth):
        pcm = recording(spec, 4.5, channels=streams * spec.channels)[:, :length]
        mine, reference = (codec.encode(pcm, codec.sample_rate, bandwidth=bandwidth) for codec in (ours, theirs))
        assert mine.num_samples == reference.num_samples == length
        assert mine.bits / max(mine.seconds, 1) / streams / 1000 < bandwidth * 1.06 or length < spec.sample_rate
        if spec.segment:
            np.testing.assert_allclose(mine.scales, reference.scales, rtol=1e-6)
        total += sum(code.size for code in mine.codes)
        different += count_differing(ours, pcm, mine, reference)
        audio, wanted = ours.decode(reference), theirs.decode(reference)
        assert audio.shape == wanted.shape == pcm.shape
        worst = max(worst, float(np.abs(audio - wanted).max()))
        assert np.abs(wanted).max() > 0.01, "the decoder says nothing; the comparison would be empty"
    print(f"{name} {bandwidth} kbps, {streams} stream(s): {total - different} of {total} tokens equal, audio within {worst:.1e}")
    assert different <= 1e-4 * total
    assert worst < 1e-4


def assert_same(mine, reference):
    """The same tokens; the authors' scales are sums in float32, which depend on the number of threads."""
    assert mine.num_samples == reference.num_samples
    for ours, theirs in zip(mine.codes, reference.codes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if mine.scales is not None:
        np.testing.assert_allclose(mine.scales, reference.scales, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("whole", "extra"), [(1, 1), (2, 80), (1, 160), (2, 321), (2, 480), (1, 481)])
def test_segments_that_end_near_an_overlap(codecs, whole, extra):
    """The last segment but one may be short as well, and the last one shorter than the overlap."""
    ours, theirs = codecs("encodec_48khz"), codecs("encodec_48khz", engine="upstream")
    pcm = recording(ours.spec, 3)[:, : whole * 47_520 + extra]
    mine, reference = (codec.encode(pcm, 48_000) for codec in (ours, theirs))
    assert_same(mine, reference)
    assert sum(mine.segment_frames) == mine.frames
    audio, wanted = ours.decode(mine), theirs.decode(mine)
    assert audio.shape == wanted.shape == pcm.shape
    assert np.abs(audio - wanted).max() < 1e-4
    parts = list(mine.parts(150))
    assert bc.CodecTokens.concat(parts) == mine


def test_where_the_authors_package_cannot_decode_its_own(codecs):
    """A last segment whose frames end inside the overlap: theirs adds up arrays of different lengths and fails."""
    ours, theirs = codecs("encodec_48khz"), codecs("encodec_48khz", engine="upstream")
    pcm = recording(ours.spec, 1)[:, : 47_520 + 200]
    tokens = ours.encode(pcm, 48_000)
    assert_same(tokens, theirs.encode(pcm, 48_000))
    with pytest.raises(bc.InferenceError):
        theirs.decode(tokens)
    audio = ours.decode(tokens)
    first = ours.decode(ours.encode(pcm[:, :47_520], 48_000))
    assert audio.shape == pcm.shape
    assert np.corrcoef(audio[0, :40_000], first[0, :40_000])[0, 1] > 0.9


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_silence_and_loud_noise(codecs, name):
    ours, theirs = codecs(name), codecs(name, engine="upstream")
    rng = np.random.default_rng(0)
    for pcm in (np.zeros((ours.channels, 3000)), rng.uniform(-1, 1, (ours.channels, 30_000))):
        mine, reference = (codec.encode(pcm.astype(np.float32), codec.sample_rate) for codec in (ours, theirs))
        assert_same(mine, reference)
        assert np.abs(ours.decode(mine) - theirs.decode(mine)).max() < 1e-4


def test_the_authors_package_does_not_stream():
    codec = bc.load("encodec_24khz", engine="upstream", weights="random:0")
    for session in (codec.encoder_session, codec.decoder_session):
        with pytest.raises(bc.NotYetImplemented, match="native"):
            session()


def test_names_ids_and_bandwidths():
    assert bc.load("encodec", weights="random:0").spec is BY_NAME["encodec_24khz"]
    assert bc.load("facebook/encodec_48khz", weights="random:0").spec is BY_NAME["encodec_48khz"]
    codec = bc.load("encodec_24khz", weights="random:0")
    assert (codec.id, codec.sample_rate, codec.num_codebooks) == ("encodec:facebook/encodec_24khz", 24_000, 32)
    assert codec.frame_rate == 75
    wanted = {
        "encodec_24khz": {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32},
        "encodec_48khz": {3.0: 2, 6.0: 4, 12.0: 8, 24.0: 16},
    }
    for name, choices in wanted.items():
        spec = BY_NAME[name]
        assert dict(zip(spec.bandwidths, spec.usable_codebooks, strict=True)) == pytest.approx(choices)
        assert spec.bandwidth == 6
        for bandwidth, books in choices.items():
            assert spec.codebooks_for(bandwidth) == books
        for wrong in (0, -1, 4.5, 48, float("nan"), "6"):
            with pytest.raises(bc.InvalidInput, match=r"bandwidth is .* supports (1.5, )?3, 6, 12 or 24 kbps"):
                spec.codebooks_for(wrong)
        with pytest.raises(bc.InvalidInput, match="num_codebooks is 3; "):
            spec.codebooks_for(num_codebooks=3)
        with pytest.raises(bc.InvalidInput, match="give only one"):
            spec.codebooks_for(6, 8)
    assert BY_NAME["encodec_48khz"].segment == bc.Segment(length=48_000, stride=47_520, normalized=True)


def test_the_causal_model_is_as_quick_as_it_can_be(codecs):
    """Seven frames are needed to mirror the first at the last convolution; from then on each frame comes as soon as it is in."""
    session = codecs("encodec_24khz").encoder_session(tile_frames=1)
    assert session.first_samples == 7 * 320
    assert session.latency_samples == 7 * 320 - 1
    pcm = recording(BY_NAME["encodec_24khz"], 1)
    made = [session.push(pcm[:, start : start + 320]).frames for start in range(0, 24_000, 320)]
    assert made == [0] * 6 + [7] + [1] * 68


def test_the_stereo_model_takes_two_channels_only(codecs):
    codec = codecs("encodec_48khz")
    for channels in (1, 3):
        with pytest.raises(bc.InvalidInput, match=f"takes 2 channels, not {channels}"):
            codec.encode(np.zeros((channels, 100), np.float32), 48_000)
    with pytest.raises(bc.InvalidInput, match="Use encode"):
        codec.encode_pcm(np.zeros(100, np.float32), 48_000)
    with pytest.raises(bc.InvalidInput, match="tile_frames"):
        codec.encoder_session(tile_frames=300)


def test_scales_belong_to_the_tokens(codecs):
    """Audio half as loud has the same codes and half the scales, and comes back half as loud."""
    codec = codecs("encodec_48khz")
    pcm = recording(codec.spec, 1.5)
    tokens, quiet = codec.encode(pcm, 48_000), codec.encode(0.5 * pcm, 48_000)
    assert all(map(np.array_equal, tokens.codes, quiet.codes))
    np.testing.assert_allclose(quiet.scales, 0.5 * tokens.scales, rtol=1e-5)
    np.testing.assert_allclose(codec.decode(quiet), 0.5 * codec.decode(tokens), atol=1e-6)
