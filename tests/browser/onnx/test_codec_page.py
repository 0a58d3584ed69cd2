"""The example's page: an exported model under onnxruntime-web, from audio to tokens and back."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.onnx.check import count_differing
from tests.helpers.static_files import CROSS_ORIGIN_ISOLATED, serving

READY = "!document.getElementById('controls').disabled"
LOADED = f"model !== null && {READY}"


@pytest.fixture
def page(opened, address):
    page = opened(f"{address}/index.html", viewport={"width": 360, "height": 800}, permissions=["microphone"])
    page.until(LOADED, 120)
    return page


@pytest.fixture
def speech(tmp_path):
    bc.write_audio(tmp_path / "speech.wav", 0.5 * voice(4.0, 24_000), 24_000)
    return tmp_path / "speech.wav"


def converted(page, path) -> str:
    """The page's last word on a file."""
    page.uncheck("#play")  # as fast as it can
    page.set_input_files("#file", path)
    page.until(READY, 120)
    return page.inner_text("#status")


def check_page_against_codec(page, path) -> None:
    codec = bc.load("snac_tiny", device="cpu")
    pcm, rate = bc.read_audio(path)
    tokens = codec.encode(pcm, rate)
    codes = [np.array([row]) for row in page.evaluate("signal.codes")]
    differing = sum(count_differing(found, code) for found, code in zip(codes, tokens.codes, strict=True))
    assert differing <= 0.001 * sum(code.size for code in codes)
    heard = np.array([page.evaluate("signal.parts.flatMap(([row]) => [...row])")])
    np.testing.assert_allclose(
        heard, codec.decode(bc.CodecTokens.from_codes(codec.spec, codes, num_samples=pcm.shape[1])), atol=1e-4
    )


def test_tokens_and_audio_are_those_of_the_codec(page, speech):
    assert page.inner_text("#model") == "snac_tiny, 24000 Hz, mono"
    assert page.inner_text("#size").startswith("model 6.5 MB, runtime 14.2 MB; threads: 1")
    assert page.inner_text("#latency") == "encoder 200 ms, decoder 141 ms"
    assert page.violations() == []
    assert converted(page, speech) == "Done: 4.0 s"
    check_page_against_codec(page, speech)
    assert page.inner_text("#tokens") == "1100 for 4.0 s of audio, 2.75 kbps"
    assert all("times real time" in page.inner_text(f"#{half}") for half in ("encoder", "decoder"))
    assert "after the first sample" in page.inner_text("#first")
    with page.expect_download() as got:
        page.click("#download")
    saved, rate = bc.read_audio(got.value.path())
    assert rate == 24_000
    np.testing.assert_allclose(saved[0], page.evaluate("signal.parts.flatMap(([row]) => [...row])"), atol=2**-15)
    assert page.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_threads_need_an_isolated_page_and_change_nothing(opened, site, speech):
    with serving(site, CROSS_ORIGIN_ISOLATED) as address:
        page = opened(f"{address}/index.html")
        page.until(LOADED, 120)
        threads = min(4, page.evaluate("navigator.hardwareConcurrency"))
        assert page.inner_text("#size").endswith(f"threads: {threads}")
        assert converted(page, speech) == "Done: 4.0 s"
        check_page_against_codec(page, speech)


def test_a_microphone_is_heard_until_it_is_stopped(page):
    page.click("#microphone")
    page.until("signal && signal.samplesOut > 6000")
    page.click("#stop")
    page.until(READY)
    assert page.inner_text("#status").startswith("Done")
    samples_in, samples_out, loudest = page.evaluate(
        "[signal.samplesIn, signal.samplesOut, Math.max(...signal.parts.flatMap(([row]) => [...row]))]"
    )
    assert samples_in == samples_out > 6000
    assert loudest > 0.05  # Chromium's own microphone beeps


def test_any_exported_folder_runs(opened, address, page, site, mixed, tmp_path):
    page.set_input_files("#folder", site / "mixed")
    page.until("model && model.name === 'mixed_8khz' && " + READY)
    pcm = np.random.default_rng(0).normal(0, 0.3, (1, 805)).astype(np.float32)
    bc.write_audio(tmp_path / "noise.wav", pcm, 8000)
    pcm, _ = bc.read_audio(tmp_path / "noise.wav")
    assert converted(page, tmp_path / "noise.wav") == "Done: 0.1 s"
    assert [np.array([row]).tolist() for row in page.evaluate("signal.codes")] == [
        code.tolist() for code in mixed.encode(pcm, 8000, num_codebooks=2).codes
    ]
    other = opened(f"{address}/index.html?model=mixed/")
    other.until(LOADED)
    assert other.inner_text("#model") == "mixed_8khz, 8000 Hz, mono"


def test_stereo_of_another_rate_becomes_what_the_model_takes(page, tmp_path):
    bc.write_audio(tmp_path / "stereo.wav", np.stack([0.5 * voice(1.0, 44_100, seed) for seed in (1, 2)]), 44_100)
    assert converted(page, tmp_path / "stereo.wav") == "Done: 1.0 s"
    assert page.evaluate("signal.samplesOut") == 24_000


def test_what_cannot_be_read_is_said_and_the_page_goes_on(page, speech, tmp_path):
    (tmp_path / "note.wav").write_text("dear diary")
    assert converted(page, tmp_path / "note.wav") == "Error: note.wav cannot be read as audio"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("dear diary")
    page.set_input_files("#folder", tmp_path / "folder")
    page.until("document.getElementById('status').textContent.startsWith('Error')")
    assert "the folder has no export.json" in page.inner_text("#status")
    assert page.is_disabled("#microphone")
