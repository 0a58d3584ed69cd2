"""The report of `blazen-codec compare`, opened from disk."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice

SYSTEMS = ("encodec_tiny@1.5", "encodec_tiny@6", "snac_tiny", "dac_tiny@3")
NASTY = "</h2><b onclick=x>&amp; 2.wav".replace("/", "∕")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of two recordings, one of which has a name that looks like markup."""
    folder = tmp_path_factory.mktemp("report")
    bc.write_audio(folder / "1 stereo.wav", np.stack([0.5 * voice(6.0, 44_100, seed) for seed in (1, 2)]), 44_100)
    bc.write_audio(folder / NASTY, 0.05 * voice(2.0, 16_000), 16_000)
    asked = [part for name in SYSTEMS for part in ("-c", name)]
    command = ["compare", folder, *asked, "-o", folder / "report.html", "--no-pesq"]
    subprocess.run([sys.executable, "-m", "blazen_codec_core.cli.main", *command], check=True)
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(opened, report):
    return opened(report)


def sound(page, number: int) -> float:
    """How loud a version's way to the loudspeaker is just now: the root of the mean square."""
    return page.evaluate(
        """async (number) => {
            const { player } = views[0];
            const tap = player.context.createAnalyser();
            player.gains[number].connect(tap);
            await new Promise((done) => setTimeout(done, 250));
            const samples = new Float32Array(tap.fftSize);
            tap.getFloatTimeDomainData(samples);
            return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
        }""",
        number,
    )


def test_it_opens_without_the_network(page):
    assert page.title() == "Codecs compared"
    assert page.locator("section.recording").count() == 2
    assert page.locator("section.recording h2").nth(1).inner_text() == NASTY
    assert page.locator("img").count() == 2 * (1 + 2 * len(SYSTEMS) + len(SYSTEMS))
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 20)")
    assert page.locator(".summary svg circle").count() == len(SYSTEMS)
    assert page.locator(".reveals tbody tr").count() == len(SYSTEMS)


@pytest.mark.parametrize("higher", [0.0, 0.01, 0.1])
def test_no_line_of_the_plot_runs_through_a_label(page, higher):
    """Also of a codec whose quality hardly depends on its rate, whose line passes where a label is put first."""
    labels, line = page.evaluate(
        """(higher) => {
            const rows = [1.5, 3, 6].map((kbps, index) =>
                ({ name: `codec@${kbps}`, number: index + 1, numbers: { kbps, stoi: 0.8 + higher * index } }));
            const other = { name: "other", number: 4, numbers: { kbps: 2, stoi: 0.6 } };
            const plot = rateQuality([...rows, other], "stoi", { label: "STOI", better: "high" });
            document.querySelector(".plot").replaceChildren(plot);
            const boxes = [...plot.querySelectorAll(".label")].map((label) => label.getBBox());
            const path = plot.querySelector(".join");
            const whole = path.getTotalLength();
            const points = Array.from({ length: 200 }, (_, index) => path.getPointAtLength((index / 199) * whole));
            return [boxes.map(({ x, y, width, height }) => [x, y, width, height]), points.map(({ x, y }) => [x, y])];
        }""",
        higher,
    )
    assert (len(labels), len(line)) == (4, 200)
    assert not [(box, at) for box in labels for at in line if all(0 < at[i] - box[i] < box[2 + i] for i in (0, 1))]


def test_it_plays_and_switches_at_the_same_instant(page):
    page.click(".play >> nth=0")
    page.until("views[0].player.position > 0.5")
    assert sound(page, 0) > 1e-3
    assert sound(page, 3) < 1e-5
    before = page.evaluate("[views[0].player.position, performance.now() / 1000]")
    page.check("input[value='snac_tiny'] >> nth=0")
    after = page.evaluate("[views[0].player.position, performance.now() / 1000]")
    assert after[0] - before[0] == pytest.approx(after[1] - before[1], abs=0.08)
    assert page.evaluate("views[0].player.state") == "playing"
    assert sound(page, 3) > 1e-3
    assert sound(page, 0) < 1e-5
    playhead = page.evaluate("Number(getComputedStyle(document.querySelector('.stack')).getPropertyValue('--at'))")
    assert playhead == pytest.approx(page.evaluate("views[0].player.position") / 6, abs=0.03)
    page.click("text=Pause")
    at = page.evaluate("views[0].player.position")
    page.wait_for_timeout(150)
    assert page.evaluate("views[0].player.position") == at


def test_all_versions_are_in_step_to_the_sample(page):
    """The player's own scheduling, rendered: sound that came in parts is whole, and switching does not move it."""
    heard = page.evaluate(
        """async () => {
            const rate = 8000, offline = new OfflineAudioContext(1, rate, rate);
            offline.resume = async () => {};
            Player.contexts.set(rate, offline);
            const player = new Player(rate, 0.8, 2);
            const ramp = Float32Array.from({ length: 0.8 * rate }, (_, at) => at / rate);
            for (const [from, to] of [[0, 1], [1, 1000], [1000, 1003], [1003, 6400]]) {
                const part = new AudioBuffer({ length: to - from, sampleRate: rate });
                part.copyToChannel(ramp.subarray(from, to), 0);
                player.append(0, part);
            }
            const flat = new AudioBuffer({ length: 6400, sampleRate: rate });
            flat.copyToChannel(ramp.map((value) => value + 1), 0);
            player.append(1, flat);
            player.complete(0), player.complete(1);
            player.offset = 0.1;
            await player.play();
            offline.suspend(0.4).then(() => { player.select(1); offline.constructor.prototype.resume.call(offline); });
            const out = await offline.startRendering();
            return [player.startedAt * rate, [...out.getChannelData(0)]];
        }"""
    )
    start, samples = round(heard[0]), np.array(heard[1])
    begun, switched, settled = start + 400, int(0.4 * 8000), int(0.4 * 8000) + 800
    ramp = (np.arange(8000) - start) / 8000 + 0.1
    np.testing.assert_allclose(samples[begun:switched], ramp[begun:switched], atol=1e-4)
    np.testing.assert_allclose(samples[settled : start + 5600], ramp[settled : start + 5600] + 1, atol=1e-4)


def test_seeking(page):
    width = page.locator(".image.level").first.bounding_box()["width"]
    page.locator(".image.level").first.click(position={"x": 0.25 * width, "y": 20})
    assert page.evaluate("views[0].player.position") == pytest.approx(1.5, abs=0.02)
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("views[0].player.position") == pytest.approx(6.0, abs=0.02)
    assert page.locator(".time").first.inner_text() == "0:06.0 / 0:06.0"
    page.click("text=Play >> nth=0")
    page.until("views[0].player.position > 0.1 && views[0].player.position < 3")  # from the start again


def test_it_ends_or_loops(page):
    page.evaluate("views[1].player.seek(1.6)")
    page.click(".play >> nth=1")
    page.until("views[1].player.position > 1.9 && views[1].player.state === 'paused'", 5)
    assert page.evaluate("views[1].player.position") == pytest.approx(2.0)
    page.check("text=Loop >> nth=1")
    page.evaluate("views[1].player.seek(1.7)")
    page.click(".play >> nth=1")
    page.until("views[1].player.position < 1", 5)
    assert page.evaluate("views[1].player.state") == "playing"


def test_only_one_recording_plays(page):
    page.click(".play >> nth=0")
    page.until("views[0].player.state === 'playing'")
    page.click(".play >> nth=1")
    page.until("views[1].player.state === 'playing'")
    assert page.evaluate("views[0].player.state") == "paused"


def test_keys_do_it_all(page):
    page.keyboard.press(" ")
    page.until("views[0].player.state === 'playing'")
    page.keyboard.press("3")
    assert page.evaluate("views[0].player.selected") == 2
    assert page.is_checked("input[value='encodec_tiny@6'] >> nth=0")
    page.keyboard.press("ArrowRight")
    page.until("views[0].player.position > 1")
    page.keyboard.press(" ")
    assert page.evaluate("views[0].player.state") == "paused"
    page.keyboard.press("9")
    assert page.evaluate("views[0].player.selected") == 2


def test_levels_are_matched_unless_one_says_not_to(page):
    page.click(".play >> nth=0")
    page.until("views[0].player.state === 'playing'")
    page.check("input[value='snac_tiny'] >> nth=0")
    gain = page.evaluate("views[0].player.versions[3].gain")
    assert gain != 1
    page.until(f"Math.abs(views[0].player.gains[3].gain.value - {gain}) < 1e-3")
    page.uncheck("text=Match levels >> nth=0")
    page.until("Math.abs(views[0].player.gains[3].gain.value - 1) < 1e-3")


def test_a_blind_comparison_tells_nothing_before_its_end(page):
    page.click(".play >> nth=0")
    page.click("text=Blind A/B >> nth=0")
    first = page.locator("section.recording").first
    assert page.locator(".reveals").is_hidden()
    assert first.locator(".stack").first.is_hidden()
    assert first.locator(".versions label").all_inner_texts() == ["Reference\n1", "A\n2", "B\n3"]
    pairs = []
    for number, key in enumerate("abn" * 8, 1):
        pairs.append(tuple(page.evaluate("views[0].blind.pair")))
        assert len(set(pairs[-1])) == 2
        text = first.inner_text()
        assert not any(name in text for name in SYSTEMS)
        page.keyboard.press(key)
        assert f"Choice {number} noted" in first.inner_text()
    assert len(set(pairs)) > 5  # of 20 there are
    page.keyboard.press("3")
    assert page.evaluate("views[0].player.selected === views[0].blind.pair[1]")
    page.click("text=Stop and reveal")
    rows = [row.split("\t") for row in first.locator(".tally tbody tr").all_inner_texts()]
    names = ["original", *SYSTEMS]
    for name, preferred, other, alike in rows:
        mine = [(pair[0], key) for pair, key in zip(pairs, "abn" * 8, strict=True) if names.index(name) in pair]
        won = [(names[first] == name) == (key == "a") for first, key in mine if key != "n"]
        assert [int(preferred), int(other), int(alike)] == [won.count(True), won.count(False), sum(key == "n" for _, key in mine)]
    assert first.locator(".stack").first.is_visible()
    with page.expect_download() as got:
        page.click("text=Download the choices")
    assert len(json.loads(got.value.path().read_text())) == 24
    page.click("text=Discard the choices")
    assert "No choices were made" in first.inner_text()


def test_pictures_can_be_chosen(page):
    first = page.locator("section.recording").first
    first.get_by_label("Differences").check()
    assert first.locator(".image.difference:visible").count() == len(SYSTEMS)
    assert first.locator(".image.level:visible").count() == 0
    first.get_by_label("Spectrograms", exact=True).check()
    assert first.locator(".image.level:visible").count() == 1 + len(SYSTEMS)
    assert first.locator(".image.difference:visible").count() == 0


def test_the_plot_shows_other_qualities(page):
    label = page.locator(".plot svg").get_attribute("aria-label")
    page.get_by_label("Quality by").select_option("log_mel_distance")
    assert page.locator(".plot svg").get_attribute("aria-label") != label
    assert "low is better" in page.locator(".plot svg").get_attribute("aria-label")
    assert "pesq" not in page.locator(".plot select").inner_html()  # which was left out


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(opened, report, scheme):
    page = opened(report, color_scheme=scheme)
    assert page.violations() == []
    page.click("text=Blind A/B >> nth=0")
    page.keyboard.press("a")
    assert page.violations() == []
    page.click("text=Stop and reveal")
    assert page.violations() == []


def test_the_theme_can_be_chosen(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("text=Theme: system")
    assert page.evaluate(ground) == light
    page.click("text=Theme: light")
    assert page.evaluate(ground) != light


def test_narrow_screens(opened, report):
    page = opened(report)
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
