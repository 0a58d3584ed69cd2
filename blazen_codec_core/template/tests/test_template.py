"""Tests that are specific to this codec."""

import numpy as np

import blazen_codec_core as bc


def test_shapes_of_one_second() -> None:
    codec = bc.load("template")
    tokens = codec.encode(np.zeros(16_000, np.float32), 16_000)
    assert [code.shape for code in tokens.codes] == [(1, 100), (1, 100)]
    assert codec.decode(tokens).shape == (1, 16_000)


def test_first_codebook_does_not_depend_on_the_number_of_codebooks() -> None:
    codec = bc.load("template_16khz")
    pcm = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    one, both = (codec.encode(pcm, 16_000, num_codebooks=count) for count in (1, 2))
    assert np.array_equal(one.codes[0], both.codes[0])
