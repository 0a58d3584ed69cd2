"""Tests that are specific to this codec."""

import numpy as np

import blazen_codec_core as bc


def test_shapes_of_one_second() -> None:
    codec = bc.load("template")
    latents = codec.encode_latents(np.zeros(16_000, np.float32), 16_000)
    assert latents.shape == (8, 100)
    assert codec.decode_latents(latents).shape == (1, 16_000)


def test_different_audio_has_different_latents() -> None:
    codec = bc.load("template_16khz")
    pcm = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    assert not np.allclose(codec.encode_latents(pcm, 16_000), codec.encode_latents(-pcm, 16_000))
