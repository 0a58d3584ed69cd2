"""`blazen-codec new-plugin`, and the tutorial that builds the same by hand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import blazen_codec_core as bc
from blazen_codec_core.cli.main import main
from blazen_codec_core.template import write_plugin
from tests.helpers.install_site import Site

FILE = re.compile(r"`(acme-codec/[\w./-]+)`:\n\n```\w+\n(.*?)\n```", re.DOTALL)
BLOCK = re.compile(r"```(python|sh)\n(.*?)\n```", re.DOTALL)


@pytest.fixture(scope="module")
def tutorial(root) -> str:
    return (root / "docs" / "writing-a-plugin.md").read_text()


def test_the_tutorial_builds_what_new_plugin_writes(tutorial, tmp_path):
    project = write_plugin("acme", tmp_path)
    shown = dict(FILE.findall(tutorial))
    for name, text in shown.items():
        assert (tmp_path / name).read_text().rstrip() == text, name
    written = {str(path.relative_to(tmp_path)) for path in project.rglob("*") if path.is_file()}
    assert written - set(shown) == {
        "acme-codec/README.md",
        "acme-codec/acme_codec/weights.safetensors",
        "acme-codec/tests/test_acme.py",
    }


@pytest.mark.slow
def test_the_tutorial_by_hand(tutorial, root, tmp_path):
    """Its files written as shown, its code run as shown, and its commands, where they do not install."""
    for name, text in FILE.findall(tutorial):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "acme-codec" / "README.md").write_text("# acme-codec\n")
    site = Site(tmp_path)
    site.install(root)
    shown = {text for _, text in FILE.findall(tutorial)}
    code = [text for language, text in BLOCK.findall(tutorial) if language == "python" and text not in shown]
    weights, usage = code
    run = site.python("-c", f"import sys; sys.path.insert(0, 'acme-codec')\n{weights}", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    site.install(tmp_path / "acme-codec")
    run = site.python("-c", usage, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    commands = [line for language, text in BLOCK.findall(tutorial) if language == "sh" for line in text.splitlines()]
    assert [shlex.split(command)[0] for command in commands] == ["pip", "blazen-codec", "pytest", "pytest"]
    assert "acme_16khz" in site.command(*shlex.split(commands[1])[1:]).stdout
    for command in commands[2:]:
        quick = ["-k", "refuses or audio or tokens or Refusals or empty", "-p", "no:cacheprovider"]
        run = site.python("-m", *shlex.split(command), *quick, folder=tmp_path)
        assert run.returncode == 0, run.stdout
    assert "holds Refuses         empty audio" in run.stdout


@pytest.mark.parametrize("name", ["", "1st", "My", "a b", "a--b", "_a", "a_", "ä", "template", "blazen", "../up"])
def test_names_that_no_package_can_have(name, tmp_path):
    with pytest.raises(bc.InvalidInput, match="is not a plugin name"):
        write_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    (tmp_path / "acme-codec").mkdir()
    with pytest.raises(bc.InvalidInput, match="exists"):
        write_plugin("acme", tmp_path)
    with pytest.raises(bc.InvalidInput, match="cannot be written"):
        write_plugin("acme", tmp_path / "nowhere")
    written = []

    def full(path: Path, *_: object, **_options: object) -> None:
        written.append(path)
        if len(written) > 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(bc.InvalidInput, match="No space left"):
        write_plugin("other", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["acme-codec"]


def test_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["new-plugin", "my-own", "-o", str(tmp_path)])
    assert not stopped.value.code
    assert "pip install -e" in capsys.readouterr().err
    backend = (tmp_path / "my-own-codec" / "my_own_codec" / "backend.py").read_text()
    assert "class MyOwnBackend" in backend
    for path in (tmp_path / "my-own-codec").rglob("*"):
        assert "template" not in path.name.lower()
        if path.suffix in (".py", ".toml", ".md"):
            assert "template" not in path.read_text().lower()
    compiled = subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path)], check=False)
    assert compiled.returncode == 0
