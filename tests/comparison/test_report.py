"""`blazen-codec compare`: the report, the pictures, the numbers."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.comparison.render import html
from blazen_codec_core.conformance.signals import voice

ASKED = ("-c", "encodec_tiny@1.5", "-c", "encodec_tiny@6", "-c", "snac_tiny", "--device", "cpu")
NASTY = "</script><img src=x onerror=alert(1)> & {{data}}.wav".replace("/", "_")


@pytest.fixture
def two(tmp_path):
    bc.write_audio(tmp_path / "a.wav", voice(1.0, 24_000), 24_000)
    bc.write_audio(tmp_path / "b.flac", np.stack([voice(1.5, 44_100, 1)] * 2), 44_100)
    return tmp_path / "a.wav", tmp_path / "b.flac"


def embedded(text: str) -> dict:
    """What the page holds."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_report_holds_all_that_it_needs(run, two, tmp_path):
    code, out, err = run("compare", *two, *ASKED, "-o", "report.html")
    assert (code, out) == (0, "")
    assert "wrote report.html" in err
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", text)
    assert "default-src &#x27;none&#x27;" in text
    data = embedded(text)
    assert [recording["name"] for recording in data["recordings"]] == ["a.wav", "b.flac"]
    for recording, path in zip(data["recordings"], two, strict=True):
        pcm, rate = bc.read_audio(path)
        assert [version["name"] for version in recording["versions"]] == [
            "original",
            "encodec_tiny@1.5",
            "encodec_tiny@6",
            "snac_tiny",
        ]
        for version in recording["versions"]:
            sound, its_rate = soundfile.read(io.BytesIO(base64.b64decode(version["audio"])), always_2d=True)
            assert (sound.T.shape, its_rate) == (pcm.shape, rate)
            assert base64.b64decode(version["spectrogram"]).startswith(b"\x89PNG")
            assert bool(version["tokens"]) == bool(version["difference"]) == (version["name"] != "original")
        first = soundfile.read(io.BytesIO(base64.b64decode(recording["versions"][0]["audio"])), always_2d=True)[0]
        np.testing.assert_allclose(first.T, pcm.clip(-1, 1), atol=1e-4)


def test_the_numbers_are_means_weighted_by_length(run, two):
    code, out, _ = run("compare", *two, *ASKED, "--json")
    assert code == 0
    made = json.loads(out)
    assert [row["system"] for row in made["systems"]] == ["encodec_tiny@1.5", "encodec_tiny@6", "snac_tiny"]
    lengths = [recording["seconds"] for recording in made["recordings"]]
    assert lengths == [1.0, 1.5]
    for number, row in enumerate(made["systems"]):
        each = [recording["systems"][number]["stoi"] for recording in made["recordings"]]
        assert row["stoi"] == pytest.approx(np.average(each, weights=lengths))
    assert made["systems"][0]["stoi"] < made["systems"][1]["stoi"]
    assert made["recordings"][0]["systems"][2]["codebooks"][0]["bits"] == 10


@pytest.mark.slow
def test_pictures(run, two, tmp_path):
    code, _, _ = run("compare", *two, *ASKED, "--pictures", "new/pictures", "--seconds", 0.5, "--no-pesq", "-q")
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir())
    assert names == ["01-a.spectrograms.png", "01-a.tokens.png", "02-b.spectrograms.png", "02-b.tokens.png", "rate-quality.png"]
    for path in (tmp_path / "new" / "pictures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_names_are_never_markup(run, two, tmp_path):
    shutil.copy(two[0], tmp_path / NASTY)
    assert run("compare", tmp_path / NASTY, "-c", "snac_tiny", "-o", "report.html", "--no-pesq")[0] == 0
    text = (tmp_path / "report.html").read_text()
    assert "<img src=x" not in text
    assert embedded(text)["recordings"][0]["name"] == NASTY


def test_json_within_a_script_ends_it_nowhere():
    said = {"a": "</script><!--<script>", "b": "\u2028"}
    assert "<" not in html.as_script(said)
    assert json.loads(html.as_script(said)) == said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["a.wav", "-c", "snac_tiny"], 2, "-o report.html, --pictures FOLDER or --json"),
        (["a.wav", "-c", "snac_tiny@3", "--json"], 2, "2.75 kbps"),
        (["a.wav", "-c", "nonsense", "--json"], 3, "nonsense"),
        (["missing.wav", "-c", "snac_tiny", "--json"], 2, "missing.wav is not a file"),
        (["note.wav", "-c", "snac_tiny", "-o", "report.html"], 5, "note.wav cannot be read as audio"),
        (["a.wav", "-c", "snac_tiny", "-o", "nowhere/report.html"], 2, "nowhere is not a directory"),
        (["a.wav", "-c", "snac_tiny", "--pictures", "a.wav/x"], 2, "cannot be created"),
        (["a.wav", "--json"], 2, "--codec"),
    ],
)
def test_mistakes_are_said_and_nothing_is_left(run, two, tmp_path, arguments, code, says):
    (tmp_path / "note.wav").write_text("dear diary")
    before = sorted(tmp_path.iterdir())
    made, out, err = run("compare", *arguments)
    assert (made, out) == (code, "")
    assert says in err
    assert sorted(tmp_path.iterdir()) == before


def test_opus_beside_them(run, two):
    if not shutil.which("ffmpeg") and not shutil.which("opusenc"):
        pytest.skip("neither ffmpeg nor opus-tools is installed")
    code, out, _ = run("compare", two[1], "-c", "opus@16", "--json")
    assert code == 0
    row = json.loads(out)["systems"][0]
    assert 8 < row["kbps"] < 24
    assert row["encode_factor"] > 0
