"""Packages of the npm registry, in a folder, with what they must hash to."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")
"""Codes of npm's errors where there is no way to its registry."""


def unpacked(name: str, version: str, sha512: str, folder: Path) -> Path:
    """Fetch a package from npm's registry without the packages that it depends on; return its own folder in `node_modules`.

    The calling test is skipped if npm is not installed or cannot reach its registry.

    Args:
        sha512: The digest of the archive in base64, as in a package-lock.json.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed, which fetches {name}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", f"{name}@{version}", "--loglevel", "error", "--pack-destination", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if run.returncode and (codes := [code for code in UNREACHABLE if code in run.stderr]):
        pytest.skip(f"npm cannot reach its registry, which has {name}: {codes[0]}")
    assert run.returncode == 0, run.stderr
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    assert base64.b64encode(digest).decode() == sha512, f"{name} {version} is not the archive that was pinned"
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    archive.unlink()
    package = folder / "node_modules" / name
    package.parent.mkdir(parents=True, exist_ok=True)
    return (folder / "unpacked" / "package").rename(package)
