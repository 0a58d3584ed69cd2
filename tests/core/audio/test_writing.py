"""Files that are written hold what they are given, or are refused before the work."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core import audio


@pytest.mark.parametrize("suffix", [".ogg", ".opus", ".wav", ".flac"])
def test_minutes_in_one_call(tmp_path, suffix):
    pcm = np.zeros((1, 48_000 * 60), np.float32)
    audio.write(tmp_path / f"a{suffix}", pcm, 48_000)
    assert audio.read(tmp_path / f"a{suffix}")[0].shape == pcm.shape


@pytest.mark.parametrize(
    "suffix", [".aif", ".aiff", ".au", ".caf", ".mp3", ".oga", ".opus", ".rf64", ".snd", ".sph", ".w64", ".wave"]
)
def test_suffixes(tmp_path, suffix):
    audio.write(tmp_path / f"a{suffix}", np.full((1, 16_000), 0.25, np.float32), 16_000)
    pcm, rate = audio.read(tmp_path / f"a{suffix}")
    assert pcm.shape == (1, 16_000)
    assert rate == 16_000


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        (".opus", 44_100, 1),
        (".mp3", 96_000, 1),
        (".mp3", 16_000, 6),
        (".flac", 16_000, 9),
        (".docx", 16_000, 1),
        (".raw", 16_000, 1),
    ],
)
def test_what_a_format_cannot_hold_is_refused_first(tmp_path, suffix, rate, channels):
    with pytest.raises(bc.InvalidInput, match=suffix):
        audio.check_format(suffix, rate, channels)
    with pytest.raises(bc.InvalidInput, match=suffix), audio.writing(tmp_path / f"a{suffix}", rate, channels):
        raise AssertionError("this is the work")
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_will_be_too_large_is_rf64(tmp_path):
    with audio.writing(tmp_path / "a.wav", 48_000, 1, num_samples=2**31) as out:
        out.write(np.full((1, 1000), 0.5, np.float32))
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert audio.read(tmp_path / "a.wav")[0].shape == (1, 1000)


@pytest.mark.slow
def test_over_4_gib(tmp_path):
    samples, block = 2_300_000_000, np.zeros((1, 10_000_000), np.float32)
    with audio.writing(tmp_path / "a.wav", 48_000, 1, num_samples=samples) as out:
        for _ in range(samples // block.shape[1]):
            out.write(block)
    with audio.AudioReader(tmp_path / "a.wav") as reader:
        assert reader.num_samples == samples
        assert sum(piece.shape[1] for piece in reader.blocks(1 << 22)) == samples


def test_a_device_that_is_full(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    with pytest.raises(bc.InvalidInput, match="File too large"), Limited(100_000):
        audio.write(path, np.zeros((1, 1_000_000), np.float32), 16_000)
    assert list(tmp_path.iterdir()) == []


class Limited:
    """Files can have so many bytes, in this process; the signal is ignored, and writing fails."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        self._resource = pytest.importorskip("resource", reason="Windows has no such limits")
        import signal

        self._signal = signal
        self._before = self._resource.getrlimit(self._resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._resource.setrlimit(self._resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_: object) -> None:
        self._resource.setrlimit(self._resource.RLIMIT_FSIZE, self._before)
        self._signal.signal(self._signal.SIGXFSZ, self._handler)
