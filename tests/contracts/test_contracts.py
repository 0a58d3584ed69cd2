"""Every model of every plugin is held to the contracts, as a stranger's is; what differs in its tokens has to be a tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance import Contracts, Subject
from blazen_codec_core.conformance.exactness import decode_chunks, encode_chunks
from blazen_codec_core.conformance.signals import pieces, recording
from tests.helpers.quantizer_ties import count_differing

LOUD = 3e-5
"""What another order of sums may change where random codebooks, of which DAC has up to 32, add up to loud latents."""
QUICK = (Subject("snac_tiny"),)
SLOW = (
    Subject("dac_tiny", rounding=LOUD),
    Subject("encodec_tiny"),
    Subject("encodec_24khz"),
    Subject("encodec_32khz"),
    Subject("encodec_48khz"),
    Subject("snac_24khz"),
    Subject("dac_16khz", rounding=LOUD),
    Subject("snac_32khz"),
    Subject("dac_44khz", rounding=LOUD),
    Subject("mimi_tiny"),
    Subject("mimi"),
    Subject("qwen3tts_12hz"),
)
LIKE_ANOTHER = {"dac_24khz", "dac_44khz_16kbps", "snac_44khz"}
"""Models that differ from one of those in numbers only. Their tokens are held to their authors' elsewhere. `pytest --codec NAME`
holds them to every contract."""


class TestModels(Contracts):
    subjects = (*QUICK, *(pytest.param(subject, marks=pytest.mark.slow) for subject in SLOW))

    def differing_frames(self, codec, pcm, a, b):
        count_differing(codec, pcm, a, b)
        return super().differing_frames(codec, pcm, a, b)


def test_no_model_is_left_out():
    held = {subject.name for subject in (*QUICK, *SLOW)}
    assert {spec.name for spec in bc.list_codecs()} == held | LIKE_ANOTHER
    assert not held & LIKE_ANOTHER


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny", "encodec_48khz"])
@settings(max_examples=20)
@given(data=st.data())
def test_any_chunks_change_nothing(codecs, name, data):
    codec = codecs(name)
    length = data.draw(st.integers(1, 2 * codec.sample_rate))
    pcm = recording(codec.spec, 2, channels=data.draw(st.sampled_from([1, 2])) if codec.channels == 1 else None)[:, :length]
    books = data.draw(st.sampled_from(codec.spec.usable_codebooks))
    whole = codec.encode(pcm, codec.sample_rate, num_codebooks=books)
    sizes = data.draw(st.lists(st.integers(1, 50_000), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 500))
    parts = encode_chunks(codec, pcm, pieces(length, sizes), num_codebooks=books)
    assert bc.CodecTokens.concat(parts) == whole
    assert np.array_equal(decode_chunks(codec, parts), codec.decode(whole))
