"""What the documents promise, run as written."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import blazen_codec_core as bc
from blazen_codec_core.torch_backend.upstream import stand_in

DOCS = Path(__file__).parents[2] / "docs"


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


PAGES = ("index", "migrating", *(f"concepts/{path.stem}" for path in sorted((DOCS / "concepts").glob("*.md"))))


@pytest.mark.parametrize("page", PAGES)
def test_pages_run_by_themselves_and_print_what_they_show(root, tmp_path, monkeypatch, capsys, page):
    (tmp_path / "examples").symlink_to(root / "examples")
    monkeypatch.chdir(tmp_path)
    found = re.findall(
        r'```python\n(.*?)```(?:\n\n```text title="Output"\n(.*?)```)?', (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL
    )
    names: dict[str, object] = {}
    for block, shown in found:
        with stand_in("torchaudio"):  # which transformers imports where it is found
            exec(compile(block, page, "exec"), names)
        assert capsys.readouterr().out == shown
    assert any(shown for _, shown in found)


THEIRS = {
    "snac": ("snac",),
    "encodec": ("encodec",),
    "descript-audio-codec": ("dac", "audiotools/ml"),
    "transformers": tuple(f"transformers/models/{name}" for name in ("auto", "dac", "encodec", "mimi")),
    "moshi": ("moshi",),
}
"""Sections of the page on migration, and where the package of each is among the installed ones."""


@pytest.mark.parametrize("package", THEIRS)
def test_calls_of_other_packages_exist_in_them(package):
    section = (DOCS / "migrating.md").read_text("utf-8").split(f"\n## {package}\n")[1].split("\n## ")[0]
    folders = [Path(sysconfig.get_path("purelib"), name) for name in THEIRS[package]]
    trees = [ast.parse(path.read_text("utf-8")) for folder in folders for path in folder.rglob("*.py")]
    bodies = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    functions = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ") and "`" in line]
    calls = [call for row in rows for call in re.findall(r"([\w.]+)\(", row) if not call.startswith((".", "processor"))]
    for call in calls:
        owner, _, name = call.rpartition(".")
        assert name in (methods(owner, bodies) if owner in bodies else functions), call
    assert len(calls) >= 5


def methods(name: str, classes: dict[str, ast.ClassDef]) -> set[str]:
    """Names of methods of a class and of those that it derives from; transformers' models all load with `from_pretrained`."""
    if name not in classes:
        return {"from_pretrained"} if name.startswith("PreTrained") else set()
    found = {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in classes[name].bases]
    return found.union(*(methods(getattr(base, "id", getattr(base, "attr", "")), classes) for base in bases))


def test_every_public_name_has_a_docstring_and_a_place_in_the_reference(public_names):
    assert list(public_names.problems()) == []


def test_a_public_name_without_either_is_found(public_names, monkeypatch):
    monkeypatch.setattr(public_names, "exported", lambda module: ["CORE"] if module.endswith("core") else [])
    monkeypatch.setattr(public_names, "home", lambda module, name: ("blazen_codec_core.plugins.discovery", name))
    assert [problem.split(" ", 1)[1] for problem in public_names.problems()] == [
        "has no docstring (blazen_codec_core.plugins.discovery)",
        "is not in docs/reference",
    ]


def imported(path: Path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def public_names():
    return imported(DOCS / "public_names.py")


def test_every_page_is_in_the_site(root):
    listed = set(re.findall(r"[\w/-]+\.md", (root / "mkdocs.yml").read_text("utf-8")))
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} <= listed


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
    for page in [root / "README.md", root / "CONTRIBUTING.md", root / "SECURITY.md", *(root / "docs").rglob("*.md")]:
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


@pytest.mark.slow
def test_the_benchmark_runs(root):
    program = [sys.executable, "-m", "benchmarks", "compare", "--codec", "snac_tiny", "--seconds", "0.5", "--rounds", "1"]
    run = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True)
    rows = json.loads(run.stdout)["rows"]
    assert {row["what"] for row in rows} == {"encode", "decode"}
    assert all({"ours", "authors"} <= set(row["engines"]) for row in rows)


def test_the_picture_of_the_readme_is_of_a_real_run(root, tmp_path):
    imported(DOCS / "picture.py").draw(tmp_path / "made.svg")
    made, kept = ((path / name).read_text("utf-8") for path, name in ((tmp_path, "made.svg"), (root / "docs", "roundtrip.svg")))
    cells = [re.findall(r'd="(M[^"]*z)" fill="(hsl[^"]*)"', text) for text in (made, kept)]
    assert len(cells[0]) == 550  # 2 s of 25, 50, 100 and 100 tokens
    assert sum(new == old for new, old in zip(*cells, strict=True)) > 540  # near-ties differ between processors
    assert re.findall(r">([^<]+)</", made) == re.findall(r">([^<]+)</", kept)
