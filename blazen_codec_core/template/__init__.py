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
BINARY = (".safetensors",)


def write_plugin(name: str, folder: Path) -> Path:
    """Write a plugin into a new folder below `folder` atomically; return its path.

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
            for source in sorted(HERE.rglob("*")):
                path = source.relative_to(HERE)
                if source.is_dir() or "__pycache__" in path.parts or source == Path(__file__):
                    continue
                target = written / rename(str(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.suffix in BINARY:
                    shutil.copyfile(source, target)
                else:
                    target.write_text(rename(source.read_text()))
            os.replace(written, project)
    except OSError as error:
        raise InvalidInput(f"{project} cannot be written: {error.strerror or error}") from error
    return project
