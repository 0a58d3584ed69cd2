"""How good a codec is on recordings, and Opus beside it."""

from __future__ import annotations

import json
import math
import shutil
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation import evaluate, metrics, opus

RANDOM = ["--weights", "random:0", "--device", "cpu"]


@pytest.fixture(scope="module")
def speech(root):
    pcm, rate = audio.read(root / "examples" / "speech.flac")
    return pcm[:, : 4 * rate], rate


class TestMetrics:
    @pytest.mark.parametrize(("metric", "best"), [(metrics.stoi, 1.0), (metrics.pesq, 4.64)], ids=["stoi", "pesq"])
    def test_the_same_signal_has_the_best_score_and_noise_costs(self, speech, metric, best):
        pcm, rate = speech
        noise = np.random.default_rng(0).standard_normal(pcm.shape).astype(np.float32)
        scores = [metric(pcm, pcm + share * noise, rate) for share in (0, 0.01, 0.1)]
        assert scores[0] == pytest.approx(best, abs=0.01)
        assert scores == sorted(scores, reverse=True)

    @pytest.mark.parametrize("metric", [metrics.stoi, metrics.pesq], ids=["stoi", "pesq"])
    def test_what_cannot_be_judged_has_no_score(self, metric):
        assert math.isnan(metric(np.zeros((1, 4000), np.float32), np.zeros((1, 4000), np.float32), 16_000))

    @pytest.mark.parametrize(("metric", "package"), [(metrics.stoi, "pystoi"), (metrics.pesq, "pesq")])
    def test_a_missing_package_is_named(self, monkeypatch, metric, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(bc.EngineNotAvailable, match=rf"{package}.*\[evaluate\]"):
            metric(np.zeros((1, 4000), np.float32), np.zeros((1, 4000), np.float32), 16_000)

    def test_usage_of_a_codebook(self):
        assert metrics.usage(np.array([5, 5, 5, 5])) == (1.0, pytest.approx(2.0))
        assert metrics.usage(np.array([7, 0, 0, 0])) == (0.25, 0.0)


class TestOpus:
    def test_packets_are_counted_without_the_container(self, tmp_path):
        soundfile.write(tmp_path / "a.opus", voice(2, 48_000).T, 48_000, format="OGG", subtype="OPUS")
        content = (tmp_path / "a.opus").read_bytes()
        sizes = opus.packet_sizes(content)
        assert sizes[0] == 19  # the header, RFC 7845
        assert len(sizes) == pytest.approx(2 + 2 / 0.02, abs=2)
        assert 0.8 * len(content) < sum(sizes) < len(content)

    @pytest.mark.parametrize("content", [b"RIFF" + bytes(60), b"OggS"])
    def test_other_files_are_refused(self, content):
        with pytest.raises(bc.CorruptFile, match="Ogg"):
            opus.packet_sizes(content)

    @given(st.binary(max_size=600))
    def test_damaged_files_are_refused_or_counted(self, rest):
        try:
            sizes = opus.packet_sizes(b"OggS" + rest)
        except bc.CorruptFile:
            return
        assert all(size >= 0 for size in sizes)

    def test_the_nearest_bitrate_is_one_that_it_has(self):
        assert [opus.nearest_bitrate(kbps) for kbps in (0.98, 6, 7.75, 999)] == [6, 6, 7.75, 256]

    def test_it_goes_through_opus_tools_where_there_is_no_ffmpeg(self, tmp_path, monkeypatch):
        """Which are stood in for by libsndfile, so that this does not need them."""
        convert = f"#!{sys.executable}\nimport sys, soundfile\npcm, rate = soundfile.read(sys.argv[-2])\n"
        for name, how in (("opusenc", "format='OGG', subtype='OPUS'"), ("opusdec", "format='WAV'")):
            (tmp_path / name).write_text(f"{convert}soundfile.write(sys.argv[-1], pcm, rate, {how})")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        self.check(24_000)

    @pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
    def test_it_goes_through_ffmpeg(self):
        self.check(44_100)

    def check(self, rate):
        pcm = voice(1.5, rate)[None]
        coded = opus.roundtrip(pcm, rate, 64)
        assert coded.pcm.shape == pcm.shape
        assert coded.bits < coded.file_bits
        assert metrics.si_sdr(pcm, coded.pcm) > 5

    def test_neither_program_says_what_to_install(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(bc.EngineNotAvailable, match="ffmpeg"):
            opus.check_available()

    def test_a_program_that_fails_is_quoted(self, tmp_path, monkeypatch):
        (tmp_path / "ffmpeg").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('Unknown encoder libopus')\n")
        (tmp_path / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(bc.InferenceError, match="Unknown encoder libopus"):
            opus.roundtrip(voice(0.2, 24_000)[None], 24_000, 6)


class TestEvaluation:
    def test_recordings_are_found_in_folders_and_below(self, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        for name in ("a/2.wav", "a/b/1.FLAC", "a/notes.txt"):
            (tmp_path / name).touch()
        assert evaluate.recordings([tmp_path / "a"]) == [tmp_path / "a/2.wav", tmp_path / "a/b/1.FLAC"]
        (tmp_path / "empty").mkdir()
        for wrong, message in (
            ([tmp_path / "empty"], "no audio"),
            ([tmp_path / "none.wav"], "not a file"),
            ([], "name an audio"),
        ):
            with pytest.raises(bc.InvalidInput, match=message):
                evaluate.recordings(wrong)

    @pytest.mark.parametrize("samples", [1, 29, 30, 31, 100])
    def test_pieces_are_the_whole(self, samples):
        pieces = list(evaluate.split_evenly(samples, 30))
        assert [at for piece in pieces for at in range(samples)[piece]] == list(range(samples))
        assert max(piece.stop - piece.start for piece in pieces) <= 30

    def test_means_are_weighted_and_leave_out_what_is_not_known(self):
        assert evaluate.weighted_mean([(1.0, 3.0), (5.0, 1.0), (math.nan, 9.0)]) == 2.0
        assert math.isnan(evaluate.weighted_mean([(math.nan, 1.0)]))

    def test_what_is_too_short_is_refused_by_name(self, tmp_path, codecs):
        audio.write(tmp_path / "a.wav", np.zeros((1, 100), np.float32), 24_000)
        with pytest.raises(bc.InvalidInput, match=r"a\.wav.*at least 0\.1 s"):
            evaluate.evaluate(codecs("snac_tiny"), [tmp_path / "a.wav"])

    def test_a_single_channel_is_copied_for_a_stereo_codec(self, tmp_path, codecs):
        audio.write(tmp_path / "a.wav", voice(0.3, 44_100)[None], 44_100)
        pcm = evaluate.read(tmp_path / "a.wav", codecs("encodec_48khz"))
        assert pcm.shape == (2, 14_400)
        assert np.array_equal(*pcm)

    def test_a_better_model_has_better_figures(self, root, codecs):
        both = (bc.load("snac_tiny"), codecs("snac_tiny"))
        trained, random = (evaluate.evaluate(codec, [root / "examples" / "speech.flac"]) for codec in both)
        assert trained.mean("stoi") > 0.7 > random.mean("stoi")
        assert trained.mean("log_mel_distance") < random.mean("log_mel_distance")
        assert trained.mean("kbps") == pytest.approx(2.75, rel=0.02)
        assert [book.bits for book in trained.codebooks] == [10] * 4
        assert all(0 < book.used <= 1 and 0 < book.entropy <= 10 for book in trained.codebooks)


@pytest.fixture
def stereo(tmp_path):
    audio.write(tmp_path / "in.wav", np.stack([voice(1.3, 44_100, 1), voice(1.3, 44_100, 2)]), 44_100)


@pytest.mark.usefixtures("stereo")
def test_the_command(run, tmp_path):
    code, out, _ = run("evaluate", "snac_tiny", "encodec_tiny", "--audio", "in.wav", "--mono", "--plot", "p.png", *RANDOM)
    assert code == 0
    for part in ("1 recordings, 1.3 s", "snac_tiny", "encodec_tiny", "STOI", "PESQ", "wrote p.png"):
        assert part in out
    assert (tmp_path / "p.png").stat().st_size > 10_000
    code, out, _ = run("evaluate", "encodec_tiny", "-b", 3, "--audio", tmp_path, "--no-pesq", "--json", *RANDOM)
    (report,) = json.loads(out)
    assert report["system"] == "encodec_tiny@3"
    assert len(report["codebooks"]) == 4
    assert report["mean"]["pesq"] is None
    assert report["mean"]["kbps"] == pytest.approx(6, rel=0.02)  # two channels of 3 kbps
    assert report["recordings"][0]["recording"].endswith("in.wav")


@pytest.mark.usefixtures("stereo")
def test_the_command_needs_opus_before_it_begins(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, _, err = run("evaluate", "snac_tiny", "--audio", "in.wav", "--against", "opus", *RANDOM)
    assert code == 6
    assert "ffmpeg" in err
