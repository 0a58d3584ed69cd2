"""The page of `blazen-codec serve`."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.evaluation.evaluate import Scorer
from tests.helpers.live_server import TINY, seconds_finished, serving

DONE = "live.status.textContent === 'Done' || !live.wrong.hidden"
GOES_ON = "views[0].player.state === 'playing' || views[0].player.position >= views[0].player.seconds - 0.01"
"""It plays, or has come to the end meanwhile, on a machine that is busy."""


@pytest.fixture(scope="module")
def server():
    with serving(judge=Scorer(["si_sdr_db", "log_mel_distance", "stoi"])) as where:
        yield f"http://{where}/"


@pytest.fixture
def speech(tmp_path):
    bc.write_audio(tmp_path / "speech.wav", 0.5 * voice(8.0, 24_000), 24_000)
    return tmp_path / "speech.wav"


def compare(page, path):
    page.set_input_files("#file", path)
    page.click("#run")


def answer(page) -> str:
    """Once it is over: what went wrong, if anything."""
    page.until(DONE, 120)
    return page.evaluate("live.wrong.textContent")


def test_every_tiny_model_is_heard_before_it_is_done(opened, server, speech):
    page = opened(server)
    compare(page, speech)
    page.until("views.length && views[0].player.state === 'playing'")
    early = page.evaluate("views[0].player.versions.map((version) => [version.seconds, version.complete])")
    assert not any(complete for _, complete in early)
    assert early[1][0] < 8
    assert answer(page) == ""
    assert page.evaluate("views[0].recording.versions.map(({ name }) => name)") == ["original", *sorted(TINY, key=TINY.index)]
    assert page.evaluate("views[0].player.versions.map(({ seconds }) => seconds)") == [8.0] * 4
    assert page.locator(".image.level").count() == 4
    assert page.locator(".image.tokens").count() == 3
    page.until("views[0].player.position > 0.3")
    for name in TINY:
        page.check(f"input[value='{name}']")
        assert page.evaluate(GOES_ON)


def test_what_is_heard_is_what_the_codec_makes(opened, server, speech):
    page = opened(server)
    for name in TINY[:2]:
        page.uncheck(f"input[name='{name}']")
    compare(page, speech)
    assert answer(page) == ""
    heard = page.evaluate("views[0].player.versions[1].parts.flatMap(({ buffer }) => [...buffer.getChannelData(0)])")
    codec = bc.load(TINY[2], device="cpu")
    pcm, rate = bc.read_audio(speech)
    tokens = codec.encode(pcm, rate)
    np.testing.assert_allclose(np.array(heard)[None], codec.decode(tokens), atol=1e-5)
    with page.expect_download() as got:
        page.click(f"text={TINY[2]}: tokens")
    assert got.value.suggested_filename == f"speech.{TINY[2]}.tokens"
    assert bc.CodecTokens.open(got.value.path()) == tokens
    with page.expect_download() as got:
        page.locator(".pair button").nth(1).click()
    saved = got.value.path()
    np.testing.assert_allclose(bc.read_audio(saved)[0], codec.decode(tokens).clip(-1, 1), atol=1e-4)


def test_bandwidths_are_asked_for(opened, server, speech):
    page = opened(server)
    page.get_by_label("Bandwidth of encodec_tiny").select_option("1.5")
    compare(page, speech)
    assert answer(page) == ""
    assert "encodec_tiny@1.5" in page.evaluate("views[0].recording.versions.map(({ name }) => name)")


def test_a_file_can_be_dropped(opened, server):
    page = opened(server)
    page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["not audio at all"], "dropped.wav"));
            for (const kind of ["dragover", "drop"]) {
                document.querySelector(".drop").dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, cancelable: true }));
            }
        }"""
    )
    assert "dropped.wav, 1 kB" in page.inner_text(".drop")
    page.click("#run")
    assert answer(page) == "dropped.wav cannot be read as audio: Format not recognised."


def test_audio_can_be_recorded(opened, server):
    page = opened(server, permissions=["microphone"])
    page.get_by_role("button", name="Record").click()
    page.until("live.recorder && live.recorder.seconds > 0.7")
    page.click("text=Stop at")
    page.until("live.file !== null")
    page.click("#run")
    assert answer(page) == ""
    assert page.evaluate("views[0].recording.seconds") == pytest.approx(1.0, abs=0.6)
    assert page.evaluate("Math.max(...views[0].player.versions[0].parts[0].buffer.getChannelData(0))") >= 0


def test_a_large_file_is_refused_by_the_page_and_by_the_server(opened, server, tmp_path):
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(300_000_000)
    page = opened(server)
    page.set_input_files("#file", tmp_path / "large.wav")
    assert page.inner_text("[role=alert]") == "large.wav is 300 MB; the limit is 100 MB."
    page.evaluate("offer.limits.bytes = 1e12")
    compare(page, tmp_path / "large.wav")
    assert answer(page) == "the file exceeds the limit of 100 MB"
    assert page.inner_text("#run") == "Compare"


def test_text_is_no_audio_and_the_page_goes_on(opened, server, tmp_path, speech):
    (tmp_path / "note.wav").write_text("dear diary")
    page = opened(server)
    compare(page, tmp_path / "note.wav")
    assert answer(page) == "note.wav cannot be read as audio: Format not recognised."
    compare(page, speech)
    assert answer(page) == ""


def test_what_is_missing_is_asked_for(opened, server, tmp_path, speech):
    page = opened(server)
    page.click("#run")
    assert page.inner_text("[role=alert]") == "Choose, drop or record some audio first."
    (tmp_path / "empty.wav").touch()
    page.set_input_files("#file", tmp_path / "empty.wav")
    assert page.inner_text("[role=alert]") == "empty.wav is empty."
    for name in TINY:
        page.uncheck(f"input[name='{name}']")
    compare(page, speech)
    assert page.inner_text("[role=alert]") == "Select a codec."


def test_twenty_at_once(opened, speech):
    with serving(at_once=2, waiting=8) as where:
        pages = [opened(f"http://{where}/") for _ in range(20)]
        for page in pages:
            page.set_input_files("#file", speech)
            page.uncheck("text=Play while decoding")
        for page in pages:
            page.evaluate("document.getElementById('run').click()")
        answers = [answer(page) for page in pages]
        for page in pages:
            page.close()
    assert answers.count("") >= 10
    assert all(text == "" or "Try again later" in text for text in answers)


def test_a_run_can_be_cancelled(opened, server, tmp_path, monkeypatch):
    finished = seconds_finished(monkeypatch)
    bc.write_audio(tmp_path / "long.wav", np.tile(voice(10.0, 24_000), 12), 24_000)
    page = opened(server)
    compare(page, tmp_path / "long.wav")
    page.until("views.length > 0 && views[0].player.versions[1].seconds > 0")
    page.click("#run")
    assert page.inner_text("#run") == "Compare"
    assert page.evaluate("live.status.textContent") == "Cancelled"
    page.click("#run")
    page.until("views.length > 1 && views[0].player.versions[1].seconds > 0")  # the server has turned to it
    assert not finished


def test_a_server_that_goes_away_is_said(opened, tmp_path):
    bc.write_audio(tmp_path / "long.wav", np.tile(voice(10.0, 24_000), 12), 24_000)
    with serving() as where:
        page = opened(f"http://{where}/")
        compare(page, tmp_path / "long.wav")
        page.until("views.length > 0")
    assert "connection to the server was lost" in answer(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(opened, server, speech, scheme):
    page = opened(server, color_scheme=scheme)
    assert page.violations() == []
    page.click("#run")
    assert page.violations() == []
    compare(page, speech)
    assert answer(page) == ""
    assert page.violations() == []
