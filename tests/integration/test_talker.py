"""The example of talkers: audio after one frame, the same as of all tokens at once."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from tests.helpers.narrow_qwen3tts import FROM_WEIGHTS, write_narrow

FRAMES = 14


@pytest.fixture
def example(root):
    return runpy.run_path(str(root / "examples/talker/talk.py"))


def test_talkers_are_heard_after_one_frame(example, tmp_path):
    codec = bc.load("qwen3tts_12hz", weights=write_narrow(tmp_path), parts="decoder", **FROM_WEIGHTS)
    found = example["main"](codec, str(tmp_path / "spoken"), conversations=3, frames=FRAMES, interval=0.03)
    for seed, heard in enumerate(found):
        draw = np.random.default_rng(seed)
        codes = np.stack([draw.integers(0, 2048, 16) for _ in range(FRAMES)], axis=1)
        wanted = codec.decode(bc.CodecTokens.from_codes(codec.spec, codes))
        np.testing.assert_allclose(np.concatenate(heard.parts, axis=1), wanted, atol=1e-5)
        assert heard.parts[0].shape == (1, codec.spec.hop_length)
        assert heard.frames[0] < FRAMES // 2, "the talker had nearly finished when it was first heard"
        assert soundfile.info(tmp_path / f"spoken/{seed}.wav").frames == FRAMES * codec.spec.hop_length
