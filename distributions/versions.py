"""python distributions/versions.py [NEW]: check that all distributions agree, after setting the version if one is given.

All have one version; the metadata that an index shows is the same, and plugins, trainer and core ask for each other's release.
`nox -s lint` runs it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
META, CORE = "blazen-codec", "blazen-codec-core"
PROJECTS = ("pyproject.toml", "distributions/*/pyproject.toml", "plugins/*/pyproject.toml", "training/pyproject.toml")
DEPENDENTS = ("examples/*/pyproject.toml", "blazen_codec_core/template/pyproject.toml")
"""Plugins that are not released with the others, and only ask for core."""
COMMON = ("requires-python", "license", "authors", "license-files")
OURS = re.compile(r"(blazen-codec(?:-[a-z0-9]+)?)(?:\[([\w,-]*)\])?(.*)")
NOT_PASSED_ON = {"test"}
"""Extras of core that only its own tests need."""


def projects(patterns: tuple[str, ...] = PROJECTS) -> dict[Path, dict[str, Any]]:
    """Return the `[project]` tables of all distributions; core is first."""
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return {path: tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in paths}


def requirements(project: dict[str, Any]) -> Iterator[str]:
    """Yield the requirements of a distribution, with those of its extras."""
    yield from project.get("dependencies", ())
    for extra in project.get("optional-dependencies", {}).values():
        yield from extra


def expected(name: str, version: str) -> str:
    """Return the versions of the project's other distributions that a distribution asks for."""
    major, minor, *_ = map(int, version.split("."))
    series = f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"
    return f"=={version}" if name == META else series


def wrong() -> Iterator[str]:
    """Yield each disagreement in words."""
    found = projects()
    core = next(iter(found.values()))
    version, by_name = core["version"], {project["name"]: project for project in found.values()}
    shown = set(core["classifiers"]) - {"Typing :: Typed"}  # the front door has no code
    for path, project in found.items():
        where = path.relative_to(ROOT)
        if project["version"] != version:
            yield f"{where}: version {project['version']} is not core's {version}"
        for key in COMMON:
            if project.get(key) != core[key]:
                yield f"{where}: {key} is {project.get(key)!r}, not core's {core[key]!r}"
        if missing := shown - set(project.get("classifiers", ())):
            yield f"{where}: classifiers lack {', '.join(sorted(missing))}"
        if missing := set(core["urls"]) - set(project.get("urls", ())):
            yield f"{where}: urls lack {', '.join(sorted(missing))}"
    for path, project in (found | projects(DEPENDENTS)).items():
        for line in requirements(project):
            if problem := _wrong_requirement(line, project["name"], version, by_name):
                yield f"{path.relative_to(ROOT)}: {line} {problem}"
    passed_on = set(by_name[META]["optional-dependencies"]) - {"all"}
    if passed_on != (there := set(core["optional-dependencies"]) - NOT_PASSED_ON):
        yield f"the extras of {META} and {CORE} differ: {', '.join(sorted(passed_on ^ there))}"
    brought = {match[1] for line in requirements(by_name[META]) if (match := OURS.fullmatch(line))}
    if left_out := set(by_name) - brought:
        yield f"{META} does not bring {', '.join(sorted(left_out))}"
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        yield f"CITATION.cff: version is not {version}"


def _wrong_requirement(line: str, name: str, version: str, by_name: dict[str, dict[str, Any]]) -> str:
    """Return the problem of a requirement of the distribution `name`, or nothing."""
    if not (match := OURS.fullmatch(line)):
        return ""
    other, extras, versions = match[1], set(filter(None, (match[2] or "").split(","))), match[3]
    if other not in by_name:
        return "names no distribution of this project"
    if unknown := extras - set(by_name[other].get("optional-dependencies", ())):
        return f"names extras that {other} does not have: {', '.join(sorted(unknown))}"
    if other != name and versions != expected(name, version):
        return f"asks for {versions or 'any version'}, not {expected(name, version)}"
    return ""


def set_version(version: str) -> None:
    """Write a version, and what the distributions then ask of each other, into all files."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version} is no version; expected three numbers, as 0.2.0")
    released = projects()
    for path, project in (released | projects(DEPENDENTS)).items():
        asked = expected(project["name"], version)
        text = path.read_text(encoding="utf-8")
        if path in released:
            text = re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', text)
        text = re.sub(r'"(blazen-codec[\w-]*(?:\[[\w,-]*\])?)[=>][^"]*"', rf'"\1{asked}"', text)
        path.write_text(text, encoding="utf-8", newline="\n")
    citation = ROOT / "CITATION.cff"
    text = re.sub(r"(?m)^version: .*$", f"version: {version}", citation.read_text(encoding="utf-8"))
    citation.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        set_version(sys.argv[1])
    found = list(wrong())
    print(*found, sep="\n")
    sys.exit(bool(found))
