"""The embedded models: in the wheel, worth listening to, and their authors' packages' too."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation import metrics

STOI = {"dac_tiny": 0.88, "encodec_tiny": 0.93, "mimi_tiny": 0.80, "snac_tiny": 0.85}
"""At least, on the recording of the README."""


@pytest.fixture(scope="module", params=list(STOI))
def tiny(request) -> bc.DynCodecProvider:
    return bc.load(request.param, device="cpu")


def test_it_needs_nothing_but_the_wheel(tiny):
    tiny.load()
    package = importlib.import_module(tiny.spec.weights.package)
    assert (Path(package.__file__).parent / tiny.spec.weights.file).stat().st_size <= 4_000_000


def test_it_is_intelligible(tiny, root):
    """Against the recording of the README: near it in the spectrum, and far nearer than another recording is."""
    speech, rate = bc.read_audio(root / "examples" / "speech.flac")
    decoded = tiny.decode(tiny.encode(speech, rate))
    distance = metrics.log_mel_distance(speech, decoded, rate)
    other = metrics.log_mel_distance(speech, np.roll(decoded, rate, axis=1), rate)
    assert distance < 0.5 * other
    assert metrics.stoi(speech, decoded, rate) > STOI[tiny.spec.name]


@pytest.mark.slow
def test_more_codebooks_are_better(tiny, root):
    """Wherever there is a choice."""
    speech, rate = bc.read_audio(root / "examples" / "speech.flac")
    scores = [
        metrics.stoi(speech, tiny.decode(tiny.encode(speech, rate, num_codebooks=books)), rate)
        for books in tiny.spec.usable_codebooks
    ]
    assert scores[-1] == max(scores)
    assert len(scores) == 1 or scores[-1] > scores[0] + 0.03


def test_it_is_upstreams_too(tiny):
    other = bc.load(tiny.spec.name, engine="upstream", device="cpu")
    pcm = voice(2, 24_000)
    tokens = tiny.encode(pcm, 24_000)
    reference = other.encode(pcm, 24_000)
    differing = sum(int((a != b).sum()) for a, b in zip(tokens.codes, reference.codes, strict=True))
    assert differing == 0
    assert np.abs(tiny.decode(tokens) - other.decode(tokens)).max() < 1e-4
