"""What the documents promise, run as written."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

import blazen_codec_core as bc


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_of_the_readme_and_then_of_the_pages_runs(root, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(root / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for page in ("README.md", "docs/guide.md", "docs/language-models.md", "docs/datasets.md", "docs/training-data.md"):
        found = blocks((root / page).read_text(), "python")
        assert found
        for block in found:
            exec(compile(block, page, "exec"), names)
    assert len(names["heard"]) == len(names["parts"]) + 1


def test_the_readmes_table_is_the_specs(root):
    text = (root / "README.md").read_text()
    for spec in bc.list_codecs():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{spec.name}`"))
        assert f"{spec.token_rate:.0f} a second in {spec.used_codebooks} codebooks, {spec.bandwidth:.2f} kbps" in row
        assert f"{spec.sample_rate / 1000:g} kHz{' stereo' if spec.channels == 2 else ''}" in row
        if spec.usable_codebooks == tuple(range(1, spec.num_codebooks + 1)) != (1,):
            assert f"({spec.kbps(1):.3g} each, from one on)" in row
        elif len(spec.bandwidths) > 1:
            assert f"({', '.join(f'{kbps:g}' for kbps in spec.bandwidths)})" in row


def test_the_commands_of_the_pages_exist(root):
    from blazen_codec_core.cli.main import COMMANDS

    named = {
        page: set(re.findall(r"^blazen-codec ([\w-]+)", (root / page).read_text(), re.MULTILINE))
        for page in ("README.md", "docs/command-line.md", "docs/datasets.md", "docs/compare.md")
    }
    assert named["docs/command-line.md"] == set(COMMANDS)
    assert all(those and those <= set(COMMANDS) for those in named.values())


def test_the_readme_is_short_and_links_lead_somewhere(root):
    assert len((root / "README.md").read_text().splitlines()) <= 150
    for page in [root / "README.md", root / "CONTRIBUTING.md", root / "SECURITY.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("heading", ["Install and try it", "Install and run the tests"])
def test_the_two_commands_are_a_line_each_with_an_environment_of_their_own(root, heading):
    section = (root / "README.md").read_text().split(f"### {heading}\n")[1].split("\n#")[0]
    (command,) = blocks(section, "sh")
    assert command.count("\n") == 1
    first, *others = (shlex.split(part) for part in command.split("&&"))
    assert first == ["python3", "-m", "venv", ".venv"]
    assert all(words[0].startswith(".venv/bin/") for words in others)


def pinned(root, name: str) -> str:
    """The one version of a package in the constraints."""
    (version,) = re.findall(rf"^{name}==(\S+)", (root / "constraints.txt").read_text(), re.MULTILINE)
    return version


def test_the_constraints_pin_a_torch_that_the_extra_takes(root):
    (asked,) = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["torch"]
    assert Requirement(asked).specifier.contains(pinned(root, "torch"))


def test_the_constraints_pin_the_triton_that_torch_asks_for(root):
    asked = [Requirement(line) for line in importlib.metadata.requires("torch") or ()]
    triton = [str(one.specifier) for one in asked if one.name == "triton"]
    if not triton or importlib.metadata.version("torch").partition("+")[0] != pinned(root, "torch"):
        pytest.skip("only the pinned torch, built for CUDA, says which triton it wants; nox -s resolve asks the index")
    assert triton == [f"=={pinned(root, 'triton')}"]


def test_the_benchmark_runs(root):
    program = [sys.executable, "-m", "benchmarks", "compare", "--codec", "snac_tiny", "--seconds", "0.5", "--rounds", "1"]
    run = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True)
    rows = json.loads(run.stdout)["rows"]
    assert {row["what"] for row in rows} == {"encode", "decode"}
    assert all({"ours", "authors"} <= set(row["engines"]) for row in rows)


def test_the_picture_of_the_readme_is_of_a_real_run(root, tmp_path):
    subprocess.run([sys.executable, str(root / "docs" / "picture.py"), str(tmp_path / "made.svg")], check=True)
    made, kept = ((path / name).read_text("utf-8") for path, name in ((tmp_path, "made.svg"), (root / "docs", "roundtrip.svg")))
    cells = [re.findall(r'd="(M[^"]*z)" fill="(hsl[^"]*)"', text) for text in (made, kept)]
    assert len(cells[0]) == 550  # 2 s of 25, 50, 100 and 100 tokens
    assert sum(new == old for new, old in zip(*cells, strict=True)) > 540  # near-ties differ between processors
    assert re.findall(r">([^<]+)</", made) == re.findall(r">([^<]+)</", kept)
