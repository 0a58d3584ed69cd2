"""The example of a language model says what it should in the voices that it should, after fewer steps than by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile

MODULES = ("speak", "synthetic_speech", "transformer")


@pytest.fixture
def speak(root, monkeypatch):
    """The example's main module."""
    monkeypatch.syspath_prepend(str(root / "examples/language_model"))
    import speak

    yield speak
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_speech_is_of_the_training_voices(speak, tmp_path):
    judged = speak.main(str(tmp_path / "spoken.wav"), recordings=10, words=1, steps=80, text="two")
    assert set(judged) == set(speak.VOICES)
    trained, untrained = zip(*judged.values(), strict=True)
    for voice in ("bass", "treble"):
        assert judged[voice][0].nearest == voice
        assert judged[voice][0].semitones[voice] < 2
    assert np.mean([own.decibels for own in trained]) < 0.75 * np.mean([own.decibels for own in untrained])
    assert all(min(own.semitones.values()) < 2 for own in trained)
    assert 4 * 0.2 < soundfile.info(tmp_path / "spoken.wav").duration < 4 * 1.0


def test_voices_are_told_apart_by_their_pitch(speak):
    for voice, (hertz, _) in speak.VOICES.items():
        assert speak.pitch(speak.say("nine five", voice)) == pytest.approx(hertz, rel=0.1)
