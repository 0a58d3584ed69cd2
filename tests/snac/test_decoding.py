"""What is SNAC's own: noise, attention windows, and the seed's flat form."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice


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


@pytest.mark.slow
def test_attention_decodes_whole_windows_only(codecs):
    codec = codecs("snac_32khz")
    short = bc.CodecTokens.from_codes(codec.spec, [np.zeros(8 // s, int) for s in codec.spec.strides])
    with pytest.raises(bc.InvalidTokens, match=r"tokens have 8 frames; .* decodes multiples of 32"):
        codec.decode(short)
    player = codec.decoder_session()
    player.push(short)
    with pytest.raises(bc.InvalidTokens, match="decodes multiples"):
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
