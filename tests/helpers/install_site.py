"""Throw-away places where distributions are really installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


class Site:
    """A folder of installed distributions, beside this environment's other packages but none of this project's."""

    def __init__(self, folder: Path) -> None:
        self.packages, self.others = folder / "site", folder / "others"
        self.packages.mkdir()
        self.others.mkdir()
        for item in Path(sysconfig.get_path("purelib")).iterdir():
            if "blazen" not in item.name and item.suffix != ".pth":
                (self.others / item.name).symlink_to(item)

    def install(self, project: Path) -> None:
        """Builds and installs a project without its dependencies, which are here already."""
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*command, "--disable-pip-version-check", "--target", str(self.packages), str(project)], check=True)

    def uninstall(self, name: str) -> None:
        """Removes a distribution's package and metadata, as its RECORD would."""
        for pattern in (name, f"{name}-*.dist-info"):
            for path in self.packages.glob(pattern):
                shutil.rmtree(path)

    def python(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs Python with nothing but this site: no user site, no `.pth` files."""
        environment = {"PYTHONPATH": f"{self.packages}:{self.others}", "PATH": "", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-S", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=folder)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `blazen-codec`."""
        return self.python("-m", "blazen_codec_core.cli.main", *arguments)
