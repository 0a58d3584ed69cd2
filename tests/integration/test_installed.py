"""Really installed distributions: core alone, with plugins, with a broken one, and after uninstalling."""

from __future__ import annotations

import os
import re
import shlex

import numpy as np
import pytest
import soundfile

from blazen_codec_core.conformance.signals import voice
from tests.helpers.install_site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory, root):
    made = Site(tmp_path_factory.mktemp("installed"))
    made.install(root)
    return made


@pytest.mark.slow
def test_the_life_of_plugins(site, root, tmp_path):
    alone = site.command("list")
    assert alone.returncode == 0, alone.stderr
    assert "No codec is installed" in alone.stdout
    plugins = shlex.quote(str(root / "plugins"))
    every = " or ".join(f"pip install {plugins}/{name}" for name in ("dac", "encodec", "mimi", "qwen3tts", "snac"))
    assert every in alone.stdout
    assert every in site.command("plugins").stdout
    families = {"snac_tiny": "snac", "encodec_24khz": "encodec", "dac_44khz": "dac", "mimi": "mimi", "qwen3tts_12hz": "qwen3tts"}
    for codec, name in families.items():
        unknown = site.command("info", codec)
        assert unknown.returncode == 3
        assert f"pip install {plugins}/{name}" in unknown.stderr

    site.install(root / "plugins" / "snac")
    site.install(root / "tests" / "fake_plugin")
    listed = site.command("list").stdout
    assert {"snac_24khz", "snac_tiny", "fake_8khz"} <= set(listed.split())

    site.install(root / "tests" / "broken_plugin")
    assert site.command("list").stdout == listed
    found = site.command("plugins")
    assert found.returncode == 0
    assert re.search(r"broken +broken-codec 0\.0\.9 +BROKEN: ImportError: this plugin never works", found.stdout)
    assert "fake_8khz" in found.stdout

    soundfile.write(tmp_path / "a.wav", voice(0.2, 8000), 8000)
    there = site.command("encode", str(tmp_path / "a.wav"), "-c", "fake", "-o", str(tmp_path / "a.tokens"), "--quiet")
    assert there.returncode == 0, there.stderr
    back = site.command("decode", str(tmp_path / "a.tokens"), "-o", str(tmp_path / "b.wav"), "--quiet")
    assert back.returncode == 0, back.stderr
    original, decoded = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert np.abs(original - decoded).max() < 0.05

    site.uninstall("blazen_codec_snac")
    gone = site.python("-c", "import blazen_codec_core as bc; bc.load('snac_tiny')")
    assert "UnknownCodec" in gone.stderr
    assert f"pip install {plugins}/snac" in gone.stderr
    assert "fake_8khz" in site.command("list").stdout


@pytest.mark.slow
def test_what_is_installed_holds_its_licence_types_and_model(site, root):
    plugins = ("dac", "encodec", "mimi", "qwen3tts", "snac")
    for plugin in plugins:
        site.install(root / "plugins" / plugin)
    shipped = {str(path.relative_to(site.packages)) for path in site.packages.rglob("*") if path.is_file()}
    assert "blazen_codec_snac/tiny.safetensors" in shipped
    for name in ("blazen_codec_core", *(f"blazen_codec_{plugin}" for plugin in plugins)):
        assert f"{name}/py.typed" in shipped
        assert any(re.match(rf"{name}-[\d.]+\.dist-info/licenses/LICENSE", path) for path in shipped)
    assert not [path for path in shipped if path.split(os.sep)[0] in ("tests", "training", "benchmarks")]
    assert (site.packages / "blazen_codec_snac" / "tiny.safetensors").stat().st_size <= 4_000_000
