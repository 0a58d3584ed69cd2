"""What is compared, and the way there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core import transcode
from blazen_codec_core.comparison import systems
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation import opus, roundtrip

FAST = ("encodec_tiny", "snac_tiny", "dac_tiny")


@pytest.fixture(scope="module")
def provide():
    return systems.cached_providers(bc.Registry(), bc.LoadOptions(device="cpu"))


def signal(rate: int, channels: int, seconds: float = 0.7) -> np.ndarray:
    return np.stack([0.5 * voice(seconds, rate, seed) for seed in range(channels)])


def there_and_back(aligned, pcm, sizes):
    """What comes of a recording in pieces of these sizes over and over, never more than went in so far."""
    made, at, number, out = [], 0, 0, 0
    while at < pcm.shape[1]:
        size = sizes[number % len(sizes)]
        made.append(aligned.push(pcm[:, at : at + size]))
        at, number, out = min(pcm.shape[1], at + size), number + 1, out + made[-1].shape[1]
        assert out <= at
    return np.concatenate([*made, aligned.finish()], axis=1)


@pytest.mark.parametrize(
    ("asked", "name", "bandwidth"),
    [("encodec_tiny", "encodec_tiny", None), ("encodec_tiny@1.5", "encodec_tiny", 1.5), ("snac:snac_tiny", "snac_tiny", None)],
)
def test_a_codec_is_asked_for_by_name_and_bandwidth(provide, asked, name, bandwidth):
    made = systems.system(asked, provide)
    assert (made.name, made.codec.spec.name, made.bandwidth) == (asked, name, bandwidth)


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        (["nonsense"], bc.UnknownCodec, "nonsense"),
        (["encodec_tiny@7"], bc.InvalidInput, "1.5, 3 or 6 kbps"),
        (["encodec_tiny@six"], bc.InvalidInput, "NAME@KBPS"),
        (["encodec_tiny@"], bc.InvalidInput, "NAME@KBPS"),
        (["encodec_tiny@nan"], bc.InvalidInput, "kbps"),
        (["opus"], bc.InvalidInput, "opus@16"),
        (["opus@1"], bc.InvalidInput, "6 to 256"),
        (["opus@nan"], bc.InvalidInput, "6 to 256"),
        (["snac_tiny", "snac_tiny"], bc.InvalidInput, "twice"),
        ([], bc.InvalidInput, "name a codec"),
    ],
)
def test_what_cannot_be_compared_is_refused(provide, asked, error, says):
    with pytest.raises(error, match=says):
        systems.systems(asked, provide)


def test_two_bandwidths_of_a_codec_share_its_weights(provide):
    one, other = systems.systems(["encodec_tiny@1.5", "encodec_tiny@6"], provide)
    assert one.codec is other.codec


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (44_100, 2), (16_000, 1)])
def test_a_trip_is_what_the_files_commands_make(provide, tmp_path, name, rate, channels):
    pcm = signal(rate, channels)
    bc.write_audio(tmp_path / "in.wav", pcm, rate)
    pcm, _ = bc.read_audio(tmp_path / "in.wav")
    aligned = systems.system(name, provide).roundtrip(rate, channels)
    decoded = there_and_back(aligned, pcm, [1000])
    codec = provide(name)
    tokens = transcode.encode(codec, transcode.Recording.at(tmp_path / "in.wav", codec))
    assert aligned.tokens == tokens
    assert aligned.roundtrip.bits == tokens.bits
    transcode.decode_to_file(codec, tokens, tmp_path / "out.wav")
    np.testing.assert_allclose(decoded.clip(-1, 1), bc.read_audio(tmp_path / "out.wav")[0], atol=1e-4)  # which has 16 bits


@pytest.mark.slow
@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=4), name=st.sampled_from(FAST))
def test_pieces_make_no_difference(provide, sizes, name):
    pcm = signal(22_050, 1, 0.4)
    whole, cut = (systems.system(name, provide).roundtrip(22_050, 1) for _ in range(2))
    np.testing.assert_array_equal(there_and_back(whole, pcm, [pcm.shape[1]]), there_and_back(cut, pcm, sizes))
    assert whole.tokens == cut.tokens


def test_mono_through_a_stereo_codec_comes_back_mono(codecs):
    aligned = systems.CodecSystem(codecs("encodec_48khz"), "encodec_48khz").roundtrip(48_000, 1)
    pcm = signal(48_000, 1, 0.5)
    assert there_and_back(aligned, pcm, [4800]).shape == pcm.shape
    assert aligned.tokens.source == bc.Source(48_000, pcm.shape[1], 1)


def test_a_codec_without_sessions_is_given_all_at_the_end(codecs):
    class Whole:
        """One that only works on whole signals."""

        def __init__(self, codec):
            self._codec = codec

        def encoder_session(self, *_, **__):
            raise bc.NotYetImplemented("no sessions")

        def __getattr__(self, name):
            return getattr(self._codec, name)

    codec = codecs("snac_tiny")
    pcm = signal(24_000, 1)
    assert isinstance(roundtrip.codec_roundtrip(Whole(codec), 1, None), roundtrip.OfflineCodecRoundtrip)
    both = [systems.CodecSystem(each, "snac_tiny").roundtrip(24_000, 1) for each in (codec, Whole(codec))]
    streamed, whole = (there_and_back(aligned, pcm, [5000]) for aligned in both)
    np.testing.assert_allclose(streamed, whole, atol=1e-5)
    assert both[0].tokens == both[1].tokens


def test_opus_is_there_and_back_at_its_own_pace(provide, monkeypatch):
    def roundtrip(pcm, sample_rate, kbps):
        return opus.OpusResult(0.5 * pcm, int(1000 * kbps * pcm.shape[1] / sample_rate), 9999, 0.1, 0.2)

    monkeypatch.setattr(opus, "roundtrip", roundtrip)
    aligned = systems.system("opus@12", provide).roundtrip(48_000, 2)
    pcm = signal(48_000, 2)
    np.testing.assert_array_equal(there_and_back(aligned, pcm, [777]), 0.5 * pcm)
    assert aligned.tokens is None
    assert aligned.roundtrip.bits / aligned.seconds == pytest.approx(12_000, abs=2)
    assert (aligned.roundtrip.encode_seconds, aligned.roundtrip.decode_seconds) == (0.1, 0.2)


def test_work_is_timed(provide):
    aligned = systems.system("snac_tiny", provide).roundtrip(24_000, 1)
    there_and_back(aligned, signal(24_000, 1), [24_000])
    assert aligned.roundtrip.encode_seconds > 0
    assert aligned.roundtrip.decode_seconds > 0
    assert json.dumps(aligned.seconds) == "0.7"
