"""Recordings through systems."""

from __future__ import annotations

import io
import math
import threading

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core import cancellation
from blazen_codec_core.comparison import compare, serialize, systems
from blazen_codec_core.comparison.compare import Clip
from blazen_codec_core.comparison.render import png
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation import evaluate


@pytest.fixture(scope="module")
def two():
    return systems.systems(
        ["encodec_tiny@1.5", "snac_tiny"], systems.cached_providers(bc.Registry(), bc.LoadOptions(device="cpu"))
    )


@pytest.fixture
def speech(tmp_path):
    bc.write_audio(tmp_path / "speech.wav", np.stack([voice(1.2, 32_000, 1), 0.5 * voice(1.2, 32_000, 2)]), 32_000)
    return tmp_path / "speech.wav"


def test_all_versions_lie_in_step_with_the_original(two, speech):
    heard: dict[int, list] = {0: [], 1: [], 2: []}
    ended = []
    made = compare.compare(
        Clip(speech), two, on_audio=lambda number, pcm: heard[number].append(pcm), on_decoded=lambda: ended.append(len(heard[2]))
    )
    assert [version.name for version in made.versions] == ["original", "encodec_tiny@1.5", "snac_tiny"]
    pcm, _ = bc.read_audio(speech)
    np.testing.assert_array_equal(made.original.pcm, pcm)
    for number, version in enumerate(made.versions):
        assert version.pcm.shape == pcm.shape
        np.testing.assert_array_equal(np.concatenate(heard[number], axis=1), version.pcm)
    assert ended == [len(heard[2])]
    assert made.versions[1].kbps == pytest.approx(3.0, rel=0.02)  # two channels
    assert 0 < made.versions[1].scores["stoi"] < 1
    assert made.versions[2].encode_factor > 0
    assert [len(version.codebooks) for version in made.versions] == [0, 2, 4]


def test_the_first_audio_comes_before_the_last_is_encoded(two, tmp_path):
    bc.write_audio(tmp_path / "long.wav", voice(6.0, 24_000), 24_000)
    order = []
    compare.compare(Clip(tmp_path / "long.wav"), two, evaluate.Scorer([]), on_audio=lambda number, _: order.append(number))
    assert order.index(1) < order.index(2) < len(order) - 1 - order[::-1].index(0)


def test_an_excerpt_is_the_beginning_or_mono(two, speech):
    made = compare.compare(Clip(speech, seconds=0.5, mono=True), two[1:], evaluate.Scorer([]))
    pcm, _ = bc.read_audio(speech)
    np.testing.assert_allclose(made.original.pcm, pcm[:, :16_000].mean(axis=0, keepdims=True), atol=1e-7)
    assert math.isnan(made.versions[1].scores["stoi"])
    assert serialize.numbers(made.versions[1])["stoi"] is None


@pytest.mark.parametrize(("rate", "played"), [(4000, 8000), (96_000, 48_000), (44_100, 44_100)])
def test_rates_that_nothing_plays_or_codes_are_resampled(tmp_path, rate, played):
    bc.write_audio(tmp_path / "a.wav", voice(0.3, rate), rate)
    excerpt = Clip(tmp_path / "a.wav")
    assert excerpt.sample_rate == played
    assert bool(excerpt.remarks) == (rate != played)
    assert sum(piece.shape[1] for piece in excerpt.chunks()) == pytest.approx(0.3 * played, abs=1)


@pytest.mark.parametrize(
    ("seconds", "channels", "says"),
    [(0.05, 1, "0.05 s of audio"), (0.5, 3, "3 channels")],
)
def test_what_cannot_be_compared_is_said(tmp_path, seconds, channels, says):
    bc.write_audio(tmp_path / "a.wav", np.stack([voice(seconds, 16_000)] * channels), 16_000)
    with pytest.raises(bc.InvalidInput, match=rf"a\.wav .*{says}"):
        Clip(tmp_path / "a.wav")


def test_text_is_no_audio():
    with pytest.raises(bc.CorruptFile, match=r"^note\.wav cannot be read as audio: Format not recognised\.$"):
        Clip("note.wav", content=io.BytesIO(b"dear diary, " * 20))


def test_levels_are_matched_and_nothing_clips():
    tone = (0.9 * np.sin(np.arange(48_000) / 10))[None].astype(np.float32)
    gains = compare.gains([0.1 * tone, 0.2 * tone, 0.05 * tone], 24_000)
    assert gains == pytest.approx([0, -6.02, 6.02], abs=0.01)
    gains = compare.gains([tone, 0.5 * tone + 0.0, np.where(np.arange(48_000) == 5, 1, 0.25 * tone)], 24_000)
    for gain, pcm in zip(gains, [tone, 0.5 * tone, np.where(np.arange(48_000) == 5, 1, 0.25 * tone)], strict=True):
        assert 10 ** (gain / 20) * np.abs(pcm).max() <= 1 + 1e-6
    assert compare.gains([tone, 0 * tone], 24_000) == [0, 0]
    assert compare.gains([0.001 * tone, 0.9 * tone], 24_000)[1] == -compare.MAX_GAIN_DB


def test_work_that_nobody_waits_for_ends(two, speech):
    gone, pieces = threading.Event(), []

    def heard(number, _):
        pieces.append(number)
        gone.set()

    with cancellation.cancel_scope(gone), pytest.raises(bc.InferenceError, match="cancelled"):
        compare.compare(Clip(speech), two, on_audio=heard)
    assert len(pieces) <= 3


class TestImages:
    def test_a_tone_lies_where_its_frequency_is(self):
        for rate, hertz in ((16_000, 500), (24_000, 1000), (44_100, 10_000)):
            levels = png.mel_levels((0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate))[None].astype(np.float32), rate)
            assert levels.shape == (png.BANDS, 101)
            up = dict(png.mel_ticks(rate))[hertz]
            assert levels[:, 50].argmax() == pytest.approx(up * png.BANDS, abs=1.5)

    def test_long_recordings_have_no_more_columns(self):
        pcm = np.random.default_rng(0).standard_normal((2, 16_000 * 40)).astype(np.float32)
        levels = png.mel_levels(pcm, 16_000)
        assert 600 < levels.shape[1] <= png.COLUMNS
        assert levels.std(axis=1).max() < 3  # of noise, every column is alike

    def test_pieces_of_the_transform_make_no_difference(self, monkeypatch):
        pcm = voice(5.0, 16_000)[None]
        whole = png.mel_levels(pcm, 16_000)
        monkeypatch.setattr(png, "BLOCK_COLUMNS", 7)
        np.testing.assert_allclose(png.mel_levels(pcm, 16_000), whole, atol=1e-4)

    def test_a_difference_of_silences_is_none(self):
        loud = np.full((4, 5), -10.0, np.float32)
        quiet = np.full((4, 5), -200.0, np.float32)
        assert not png.difference(loud, loud, 0.0).any()
        assert not png.difference(quiet, quiet - 50, 0.0).any()
        assert (png.difference(loud, loud + 6, 0.0) == 6).all()

    def test_pictures_have_a_pixel_a_value_and_the_colours_of_their_scale(self):
        from PIL import Image

        picture = Image.open(io.BytesIO(png.difference_image(np.array([[-99.0, 0.0, 99.0], [0.0, 0.0, 0.0]]))))
        assert picture.size == (3, 2)
        pixels = np.asarray(picture.convert("RGB"))
        swatches = png.DIFFERENCE.swatches(3)
        assert [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in pixels[1]][::2] == swatches[::2]  # the lowest band is the last row
        assert (pixels[0] == pixels[1, 1]).all()

    def test_tokens_lie_in_time(self):
        tokens = bc.CodecTokens("x:y", (np.array([[7, 8]]), np.array([[1, 2, 3, 4]])), (2, 1), 16, 8000, 4, 16)
        assert png.token_matrix(tokens).tolist() == [[7, 7, 8, 8], [1, 2, 3, 4]]

    def test_of_long_tokens_every_so_many_are_taken(self):
        count = 2 * png.TOKEN_COLUMNS + 6
        tokens = bc.CodecTokens("x:y", (np.arange(count)[None] % 16,), (1,), 16, 8000, 4, 4 * count)
        matrix = png.token_matrix(tokens)
        assert matrix.shape[1] <= png.TOKEN_COLUMNS
        assert matrix[0, :3].tolist() == [0, 3, 6]
