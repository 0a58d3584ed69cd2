"""Every plugin's models pass the check of their export."""

from __future__ import annotations

import pytest

import blazen_codec_core as bc
from tests.helpers import narrow_qwen3tts


@pytest.mark.parametrize("name", ["dac_tiny", "encodec_tiny", "mimi_tiny"])
def test_embedded_models(name, tmp_path):
    report = bc.export(name, tmp_path / name)
    assert report.agreement > 0.999
    assert report.max_pcm_error < 1e-5


def test_narrow_qwen3tts(tmp_path):
    (tmp_path / "weights").mkdir()
    weights = narrow_qwen3tts.write_narrow(tmp_path / "weights")
    report = bc.export("qwen3tts_12hz", tmp_path / "out", weights=weights, architecture="from-weights")
    assert report.agreement > 0.999
    assert report.max_pcm_error < 1e-4
