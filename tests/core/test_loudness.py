"""Loudness: against the meters of others, in pieces, and what is not loud."""

from __future__ import annotations

import builtins
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.audio import loudness
from blazen_codec_core.conformance.signals import pieces, voice
from tests.helpers.upstream_dac import loudness as audiotools_loudness


def voices(seconds: float, rate: int, channels: int) -> np.ndarray:
    return np.stack([voice(seconds, rate, channel) * (0.2 + 0.3 * channel) for channel in range(channels)])


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_as_audiotools_says(rate, channels):
    """Whose filters run in single precision."""
    for seconds in (0.05, 0.43, 1.0, 3.33):
        pcm = voices(seconds, rate, channels)
        assert bc.integrated_loudness(pcm, rate) == pytest.approx(audiotools_loudness(pcm, rate), abs=2e-3)


def test_as_pyloudnorm_says():
    """Of whole blocks, since pyloudnorm leaves out what does not fill one."""
    import pyloudnorm

    for rate in (16_000, 44_100):
        pcm = voices(3.0, rate, 2)
        wanted = pyloudnorm.Meter(rate).integrated_loudness(pcm.T.astype(np.float64))
        assert bc.integrated_loudness(pcm, rate) == pytest.approx(wanted, abs=1e-6)


def test_a_full_scale_sine_at_997_hz_is_3_lufs_below_zero():
    """The calibration of ITU-R BS.1770-4, annex 1: -3.01 LKFS."""
    t = np.arange(48_000 * 2) / 48_000
    sine = np.sin(2 * np.pi * 997 * t).astype(np.float32)[None]
    assert bc.integrated_loudness(sine, 48_000) == pytest.approx(-3.01, abs=0.05)


@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=5), length=st.integers(1, 20_000))
def test_pieces_change_nothing(sizes, length):
    pcm = voices(2.5, 8000, 2)[:, :length]
    meter = loudness.measure((pcm[:, cut] for cut in pieces(length, sizes)), 8000, 2)
    assert meter.finish() == pytest.approx(bc.integrated_loudness(pcm, 8000), abs=1e-9)
    assert meter.finish_each() == pytest.approx([bc.integrated_loudness(channel[None], 8000) for channel in pcm], abs=1e-9)
    assert np.array_equal(meter.peaks, np.abs(pcm).max(1))


def test_silence_is_as_quiet_as_can_be():
    assert bc.integrated_loudness(np.zeros((1, 8000), np.float32), 8000) == -70
    assert loudness.LoudnessMeter(8000, 1).finish() == -70


def test_pauses_do_not_count():
    pcm = voices(3, 8000, 1)
    pause = np.zeros((1, 80_000), np.float32)
    assert bc.integrated_loudness(np.concatenate([pcm, pause], axis=1), 8000) == pytest.approx(
        bc.integrated_loudness(pcm, 8000), abs=0.3
    )


def test_more_channels_than_there_are_places_for():
    with pytest.raises(bc.InvalidInput, match="6 channels; loudness is defined for 1 to 5"):
        bc.integrated_loudness(np.zeros((6, 100), np.float32), 8000)
    with pytest.raises(bc.InvalidInput, match="2000 Hz; loudness needs at least 4000 Hz"):
        bc.integrated_loudness(np.zeros((1, 100), np.float32), 2000)


def test_a_level_that_would_clip_is_kept_inside():
    pcm = voices(1, 8000, 2)
    level = loudness.Level.to(-3, loudness.measure([pcm], 8000, 2))
    peaks = np.abs(pcm * level.factors).max(1)
    assert peaks.max() == pytest.approx(1.0)
    assert peaks.min() <= 1.0


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "pyloudnorm":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(bc.EngineNotAvailable, match=r"loudness needs pyloudnorm: pip install '\S*\[loudness\]'"):
        loudness.LoudnessMeter(8000, 1)


class TestCodecs:
    @pytest.fixture
    def codec(self, codecs):
        return codecs("snac_tiny")

    def test_encoded_at_a_level_and_brought_back(self, codec):
        rate = codec.sample_rate
        pcm = voices(1.2, rate, 2) * 0.3
        tokens = codec.encode(pcm, rate, normalize_db=-16)
        assert tokens.loudness == pytest.approx([bc.integrated_loudness(channel[None], rate) for channel in pcm])
        factors = loudness.Level.to(-16, loudness.measure([pcm], rate, 2)).factors
        louder = codec.encode(pcm * factors, rate)
        assert louder == dataclasses.replace(tokens, loudness=None)
        audio = codec.decode(tokens)
        assert audio.shape == pcm.shape
        made = codec.decode(louder)
        assert codec.decoded_loudness(tokens) == pytest.approx([bc.integrated_loudness(c[None], rate) for c in made], abs=0.2)
        ratio = audio / np.where(np.abs(made) < 1e-6, 1, made)
        for channel in range(2):
            assert np.ptp(ratio[channel][np.abs(made[channel]) > 1e-3]) < 1e-3
            assert bc.integrated_loudness(audio[channel][None], rate) == pytest.approx(tokens.loudness[channel], abs=0.2)

    def test_in_a_batch_as_alone(self, codec):
        items = [voices(0.4, codec.sample_rate, 1), voices(0.7, codec.sample_rate, 2)]
        batch = codec.encode_batch(items, codec.sample_rate, normalize_db=-20.0)
        alone = [codec.encode(item, codec.sample_rate, normalize_db=-20.0) for item in items]
        assert batch == alone
        for made, tokens in zip(codec.decode_batch(batch), alone, strict=True):
            assert np.abs(made - codec.decode(tokens)).max() < 1e-5

    def test_it_is_kept_by_containers_parts_and_streams(self, codec, tmp_path):
        tokens = codec.encode(voices(0.5, codec.sample_rate, 2), codec.sample_rate, normalize_db=-16)
        tokens.save(tmp_path / "a.tokens")
        assert bc.CodecTokens.open(tmp_path / "a.tokens") == tokens
        assert bc.CodecTokens.concat(tokens.parts(64)) == tokens
        assert tokens.stream(1).loudness == tokens.loudness[1:]
        with pytest.raises(bc.InvalidTokens, match="loudness differs"):
            bc.CodecTokens.concat([tokens, dataclasses.replace(tokens, loudness=None)])

    def test_a_session_says_that_it_cannot(self, codec):
        tokens = codec.encode(voices(0.5, codec.sample_rate, 1), codec.sample_rate, normalize_db=-16)
        session = codec.decoder_session()
        with pytest.raises(bc.InvalidTokens, match="once all of them are decoded"):
            session.push(tokens)

    @pytest.mark.parametrize("wrong", [1.0, -71, float("nan"), "loud", True])
    def test_a_loudness_that_is_none(self, codec, wrong):
        for call in (codec.encode, lambda pcm, rate, **options: codec.encode_batch([pcm], rate, **options)):
            with pytest.raises(bc.InvalidInput, match="expected a loudness"):
                call(voice(0.1, codec.sample_rate), codec.sample_rate, normalize_db=wrong)

    @pytest.mark.parametrize("wrong", [(1.0, 2.0), -3.0, (math.nan,), ("loud",), ()])
    def test_tokens_that_say_none(self, codec, wrong):
        tokens = bc.CodecTokens.from_codes(codec.spec, [[0], [0, 0], [0] * 4, [0] * 4])
        with pytest.raises(bc.InvalidTokens, match="expected a number in LUFS for each of 1 channels"):
            dataclasses.replace(tokens, loudness=wrong)
        with pytest.raises(bc.InvalidTokens, match="expected names with plain values"):
            dataclasses.replace(tokens, extra={"a": [1]})
