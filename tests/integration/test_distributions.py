"""The distributions as an index shows them: versions that agree, links that lead somewhere, and no file too many."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

HERE = Path(__file__).parents[2]
PROJECTS = (
    ".",
    "distributions/blazen-codec",
    *(f"plugins/{path.name}" for path in sorted((HERE / "plugins").iterdir())),
    "training",
)
SOURCE = "https://github.com/blazen-codec/blazen-codec/"
PICTURES = "https://raw.githubusercontent.com/blazen-codec/blazen-codec/main/"


@pytest.fixture
def copy(root, tmp_path):
    """The files that name versions, in a folder of their own."""
    patterns = ("pyproject.toml", "CITATION.cff", "*/*/pyproject.toml", "*/pyproject.toml", "distributions/versions.py")
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        (tmp_path / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(root))
    return tmp_path


def versions(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "distributions" / "versions.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_distributions_agree(root):
    run = versions(root)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


@pytest.mark.parametrize(("version", "series"), [("0.2.0", ">=0.2,<0.3"), ("2.5.1", ">=2.5,<3")])
def test_one_command_sets_the_version_everywhere(copy, version, series):
    run = versions(copy, version)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
    files = [copy / project / "pyproject.toml" for project in PROJECTS]
    assert all(f'\nversion = "{version}"\n' in file.read_text("utf-8") for file in files)
    assert f'"blazen-codec-core[torch]{series}"' in (copy / "plugins/snac/pyproject.toml").read_text("utf-8")
    assert f'"blazen-codec-core[serve]=={version}"' in (copy / "distributions/blazen-codec/pyproject.toml").read_text("utf-8")
    assert f'"blazen-codec-core[torch]{series}"' in (copy / "examples/mimi/pyproject.toml").read_text("utf-8")
    assert versions(copy, "one").returncode == 1


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("plugins/dac/pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"', "version 0.1.1 is not core's 0.1.0"),
        ("plugins/snac/pyproject.toml", "[torch]>=0.1,<0.2", "[torch]>=0.1", "asks for >=0.1, not >=0.1,<0.2"),
        ("plugins/mimi/pyproject.toml", "core[torch]", "core[pytorch]", "extras that blazen-codec-core does not have: pytorch"),
        ("training/pyproject.toml", '">=3.11"', '">=3.12"', "requires-python is '>=3.12', not core's '>=3.11'"),
        ("training/pyproject.toml", "3.13", "3.10", "classifiers lack Programming Language :: Python :: 3.13"),
        ("pyproject.toml", "\nav = ", "\nffmpeg = ", "blazen-codec and blazen-codec-core differ: av, ffmpeg"),
        ("distributions/blazen-codec/pyproject.toml", '"blazen-codec-snac==0.1.0"', "", "does not bring blazen-codec-snac"),
        ("examples/mimi/pyproject.toml", ">=0.1,<0.2", ">=0.3,<0.4", "examples/mimi/pyproject.toml: blazen-codec-core"),
        ("CITATION.cff", "version: 0.1.0", "version: 0.0.9", "CITATION.cff: version is not 0.1.0"),
    ],
)
def test_a_disagreement_is_found(copy, file, before, after, said):
    text = (copy / file).read_text("utf-8")
    assert before in text
    (copy / file).write_text(text.replace(before, after), "utf-8")
    run = versions(copy)
    assert run.returncode == 1
    assert said in run.stdout.replace("\\", "/")


@pytest.mark.parametrize("project", PROJECTS)
def test_links_of_what_an_index_shows_lead_somewhere(root, project):
    command = [sys.executable, "-m", "hatchling", "metadata"]
    run = subprocess.run(command, cwd=root / project, capture_output=True, text=True, check=True)
    readme = json.loads(run.stdout)["readme"]
    text = readme["text"] if isinstance(readme, dict) else (root / project / readme).read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        assert link.startswith("https://"), link
        if match := re.match(rf"(?:{SOURCE}(?:blob|tree)/main/|{PICTURES})([^#]+)", link):
            assert (root / match[1]).exists(), link
    for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        assert picture.startswith(PICTURES), picture


@pytest.mark.parametrize("project", PROJECTS)
def test_distributions_hold_their_own_files_and_no_others(root, project):
    listed = subprocess.run(["git", "ls-files"], cwd=root / project, capture_output=True, text=True, check=True)
    package = {"LICENSE", "README.md"}  # and pyproject.toml, which the builder adds; nox -s build looks into the archives
    if project == ".":
        package |= {"CHANGELOG.md", "SECURITY.md", "hatch_build.py"}
    code = {path for path in listed.stdout.split() if path.startswith("blazen_codec_")}
    held = {Path(file.distribution_path).as_posix() for file in SdistBuilder(str(root / project)).recurse_included_files()}
    assert held == code | package
    wheel = {Path(file.distribution_path).as_posix() for file in WheelBuilder(str(root / project)).recurse_included_files()}
    assert wheel == code
