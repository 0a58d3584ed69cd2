from __future__ import annotations

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.conformance.signals import pieces, voice
from blazen_codec_core.evaluation import metrics


@pytest.mark.parametrize(("suffix", "precision"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.2)])
def test_files_come_back(tmp_path, suffix, precision):
    pcm = np.stack([voice(0.5, 16_000, 1), voice(0.5, 16_000, 2)])
    audio.write(tmp_path / f"a{suffix}", pcm, 16_000)
    back, rate = audio.read(tmp_path / f"a{suffix}")
    assert rate == 16_000
    assert back.shape == pcm.shape
    assert back.dtype == np.float32
    assert np.abs(back - np.clip(pcm, -1, 1)).max() < precision


def test_blocks_are_the_whole(tmp_path):
    pcm = voice(1, 8000)[None]
    audio.write(tmp_path / "a.wav", pcm, 8000)
    with audio.AudioReader(tmp_path / "a.wav") as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks(999)), axis=1), audio.read(tmp_path / "a.wav")[0])


def test_what_is_no_audio_is_said(tmp_path):
    (tmp_path / "text.wav").write_text("not audio at all")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 8000)
    with pytest.raises(bc.CorruptFile, match=r"text\.wav"):
        audio.read(tmp_path / "text.wav")
    with pytest.raises(bc.InvalidInput, match="no audio"):
        audio.read(tmp_path / "empty.wav")
    with pytest.raises(bc.InvalidInput, match="not a file"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(bc.InvalidInput, match=r"\.docx"):
        audio.write(tmp_path / "a.docx", np.zeros((1, 9), np.float32), 8000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.wav", "text.wav"]


@pytest.mark.parametrize(("source", "target"), [(44_100, 24_000), (8_000, 24_000), (24_000, 44_100), (16_000, 16_000)])
def test_resampling_does_not_depend_on_the_pieces(source, target):
    pcm = np.stack([voice(1, source, 1), voice(1, source, 2)])
    whole = audio.resample(pcm, source, target)
    assert abs(whole.shape[1] - target) <= 1
    resampler = audio.Resampler(source, target, 2)
    parts = [resampler.push(pcm[:, cut]) for cut in pieces(pcm.shape[1], [1, 777, 4096])]
    streamed = np.concatenate([*parts, resampler.finish()], axis=1)
    assert streamed.shape == whole.shape
    assert np.abs(streamed - whole).max() < 1e-6


def test_resampling_keeps_a_tone():
    t = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 1000 * t).astype(np.float32)[None]
    got = audio.resample(tone, 48_000, 24_000)
    assert np.abs(got[0, 200:-200] - tone[0, ::2][200:-200]).max() < 1e-3


class TestMetrics:
    def test_si_sdr_is_the_ratio_and_ignores_scale(self):
        x, noise = voice(1, 8000), np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        x = x - x.mean()
        noise -= noise.mean()
        noise -= x * (noise @ x) / (x @ x)
        noise *= np.linalg.norm(x) / np.linalg.norm(noise) / 10
        assert metrics.si_sdr(x, x + noise) == pytest.approx(20, abs=0.01)
        assert metrics.si_sdr(x, 0.1 * (x + noise)) == pytest.approx(20, abs=0.01)
        assert metrics.si_sdr(x, x) > 100

    def test_log_mel_distance_is_in_decades(self):
        x = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
        assert metrics.log_mel_distance(x, x, 24_000) == 0
        assert metrics.log_mel_distance(1000 * x, 100 * x, 24_000) == pytest.approx(1, abs=0.05)

    def test_unequal_lengths_are_refused(self):
        with pytest.raises(bc.InvalidInput, match="equal lengths"):
            metrics.si_sdr(np.zeros(3, np.float32), np.zeros(4, np.float32))
