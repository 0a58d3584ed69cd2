"""python distributions/archives.py BUILT AGAIN: check two builds of all distributions, which `nox -s build` makes.

In BUILT wheels come from sdists, in AGAIN from the tree. All files must be the same to the byte, and hold what they should.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_PACKAGE = "blazen_codec"
"""The distribution that has no code."""
BESIDE_CODE = {".gitignore", "LICENSE", "README.md", "PKG-INFO", "pyproject.toml"}
"""Files of every sdist. hatchling always adds git's rules of what to leave out, so that a wheel from an sdist is the same."""
OF_CORE = {"CHANGELOG.md", "SECURITY.md", "hatch_build.py"}
"""Further files of core's sdist."""


def names(path: Path) -> set[str]:
    """Return the files of an archive; those of an sdist without their common folder."""
    if path.suffix == ".whl":
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def wrong(built: Path, again: Path) -> Iterator[str]:
    """Yield each problem in words."""
    files = sorted(built.iterdir())
    if [path.name for path in files] != [path.name for path in sorted(again.iterdir())]:
        yield f"{again} holds other files than {built}"
        return
    for path in files:
        name = path.name.split("-")[0]
        held = names(path)
        if path.read_bytes() != (again / path.name).read_bytes():
            yield f"{path.name} differs from one build to the next"
        tops = {PurePosixPath(file).parts[0] for file in held}
        if path.suffix == ".whl":
            info = path.name.split("-py3-")[0] + ".dist-info"
            expected = {info} | ({name} if name != NO_PACKAGE else set())
        else:
            expected = (
                BESIDE_CODE | ({name} if name != NO_PACKAGE else set()) | (OF_CORE if name == "blazen_codec_core" else set())
            )
        if tops != expected:
            yield f"{path.name} holds {', '.join(sorted(tops))}; expected {', '.join(sorted(expected))}"
        if name != NO_PACKAGE and f"{name}/py.typed" not in held:
            yield f"{path.name} lacks {name}/py.typed"
        if junk := [file for file in held if re.search(r"__pycache__|\.py[co]$|\.nb[ic]$", file)]:
            yield f"{path.name} holds {', '.join(sorted(junk))}"


if __name__ == "__main__":
    found = list(wrong(*map(Path, sys.argv[1:])))
    print(*found, sep="\n")
    sys.exit(bool(found))
