"""The example of a page that speaks."""

from __future__ import annotations

import itertools

import pytest

from tests.helpers.speaking_page import speaking_page

RECORD = """() => {
const start = AudioBufferSourceNode.prototype.start
window.started = []
AudioBufferSourceNode.prototype.start = function (when) {
    window.started.push([when, this.buffer.duration, Math.max(...this.buffer.getChannelData(0).map(Math.abs))])
    start.call(this, when)
}
}"""


@pytest.fixture(scope="module")
def address(root):
    with speaking_page(root, ids=900, speed=1.3) as made:
        yield f"http://{made.address}/"


def test_a_text_is_heard_without_gaps(opened, address):
    page = opened(address)
    page.evaluate(RECORD)
    page.fill("textarea", "Hello.")
    page.click("button")
    page.until("status.textContent.includes('First sound')")
    assert page.evaluate("started.length") < 8, "it was heard only when it was over"
    page.until("status.textContent.includes('in all')")
    parts = page.evaluate("started")
    assert sum(seconds for _, seconds, _ in parts) == pytest.approx(81 * 960 / 24_000, abs=0.1)
    assert max(loudest for _, _, loudest in parts) > 0.05
    for (when, seconds, _), (following, _, _) in itertools.pairwise(parts):
        assert following >= when + seconds - 1e-6
    assert page.violations() == []


def test_an_error_is_shown(opened, address):
    page = opened(address)
    page.evaluate("document.forms[0].text.maxLength = 3000")
    page.fill("textarea", "a" * 2001)
    page.click("button")
    page.until("status.textContent.includes('1 to 2000 characters')")
