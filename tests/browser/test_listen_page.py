"""The page that plays a stream."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from tests.helpers.live_server import serving_api

SECRET = "s" * 32
OVER = "/complete|Error/.test(document.getElementById('status').textContent)"


@pytest.fixture
def tokens(tmp_path):
    made = bc.load("snac_tiny", device="cpu").encode(0.5 * voice(2.0, 24_000), 24_000)
    made.save(tmp_path / "speech.tokens")
    return made


def played(page, path) -> str:
    page.set_input_files("#file", path)
    page.until("document.getElementById('codec').options.length > 0")
    page.click("#play")
    page.until(OVER)
    return page.inner_text("#status")


def test_what_is_heard_is_what_the_codec_makes(opened, tokens, tmp_path):
    with serving_api(("snac_tiny",)) as served:
        page = opened(f"{served.url}/listen")
        assert played(page, tmp_path / "speech.tokens") == "2.0 s received, complete"
        assert page.evaluate("parts.length") > 10
        heard = page.evaluate("parts.flatMap((buffer) => [...buffer.getChannelData(0)])")
        wanted = bc.load("snac_tiny", device="cpu").decoder_session(latency="lowest").push_last(tokens)
        np.testing.assert_array_equal(np.array(heard, np.float32), wanted[0])
        assert page.violations() == []


def test_errors_are_shown(opened, tokens, tmp_path):
    with serving_api(("encodec_tiny",)) as served:
        assert "cannot be decoded by encodec:encodec_tiny" in played(opened(f"{served.url}/listen"), tmp_path / "speech.tokens")


def test_a_bearer_token_goes_in_the_first_message(opened, tokens, tmp_path):
    with serving_api(("snac_tiny",), tokens=(SECRET,)) as served:
        page = opened(f"{served.url}/listen")
        page.fill("#token", SECRET)
        page.evaluate("token.onchange()")
        assert played(page, tmp_path / "speech.tokens") == "2.0 s received, complete"
        page.wrong.clear()  # the list of codecs was refused before, which Chromium notes
