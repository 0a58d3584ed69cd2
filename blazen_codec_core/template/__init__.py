"""Template of a plugin, which `new-plugin` copies under another name."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from ..errors import InvalidInput

HERE = Path(__file__).parent
PLACEHOLDER = "template"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CONTINUOUS = HERE / "continuous"
"""Files that differ for a continuous codec."""
BINARY = (".safetensors",)


def write_plugin(name: str, folder: Path, *, continuous: bool = False) -> Path:
    """Write a plugin into a new folder below `folder` atomically; return its path.

    Args:
        continuous: The codec has latents and no tokens.

    Raises:
        InvalidInput: The name is invalid or taken, or the folder cannot be written.
    """
    name = name.replace("-", "_")
    if not NAME.fullmatch(name) or name in ("blazen", PLACEHOLDER):
        raise InvalidInput(
            f"{name!r} is not a plugin name; expected lower-case letters, digits and single underscores, such as my_codec"
        )
    project = folder / f"{name.replace('_', '-')}-codec"
    if project.exists():
        raise InvalidInput(f"{project} exists. Remove it or choose another name")
    words = {
        PLACEHOLDER.capitalize(): "".join(part.capitalize() for part in name.split("_")),
        f"{PLACEHOLDER}-codec": project.name,
        PLACEHOLDER: name,
    }
    pattern = re.compile("|".join(words))

    def rename(text: str) -> str:
        return pattern.sub(lambda match: words[match[0]], text)

    try:
        with tempfile.TemporaryDirectory(prefix=".new-plugin.", dir=folder) as temporary:
            written = Path(temporary) / project.name
            for path, source in _files(continuous).items():
                target = written / rename(str(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.suffix in BINARY:
                    shutil.copyfile(source, target)
                else:
                    target.write_text(rename(source.read_text("utf-8")), "utf-8", newline="\n")
            os.replace(written, project)
    except OSError as error:
        raise InvalidInput(f"{project} cannot be written: {error.strerror or error}") from error
    return project


def _files(continuous: bool) -> dict[Path, Path]:
    """Files of the template, by their paths in the project."""
    found = {path: path.relative_to(HERE) for path in sorted(HERE.rglob("*")) if path.is_file() and path != Path(__file__)}
    found = {path: place for path, place in found.items() if "__pycache__" not in place.parts}
    files = {place: path for path, place in found.items() if CONTINUOUS not in path.parents}
    if continuous:
        files |= {path.relative_to(CONTINUOUS): path for path in found if CONTINUOUS in path.parents}
    return files
