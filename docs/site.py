"""Hooks of the site (`mkdocs.yml`): pages from elsewhere in the repository, links to them, and a check of public names."""

from __future__ import annotations

import logging
import os.path
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import public_names

LOG = logging.getLogger("mkdocs.hooks.site")  # a warning ends a strict build
ROOT = Path(__file__).parent.parent
SOURCE = "https://github.com/blazen-codec/blazen-codec/"
OWN = re.compile(rf"{SOURCE}(?:blob|tree)/main/")
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "training/README.md": "training.md",
    **{f"plugins/{name}/README.md": f"codecs/{name}.md" for name in ("dac", "encodec", "mimi", "qwen3tts", "snac")},
    **{
        f"examples/{name}/README.md": f"examples/{name.replace('_', '-')}.md"
        for name in ("browser", "cpp", "language_model", "mimi", "orpheus_server", "talker", "tensors")
    },
}
"""Pages of the site by their source; `index.md` is a page of its own, to which links to the README lead."""
ORIGINS = {page: source for source, page in PAGES.items() if page != "index.md"}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"(?ms)^```.*?^```$")


def on_config(config: Any) -> Any:
    for problem in public_names.problems():
        LOG.warning(problem)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose source is not in `docs`."""
    for page, source in ORIGINS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links, which lead to files of the repository, into links to pages, or to addresses of files that have none."""
    here = page.file.src_uri
    folder = os.path.dirname(ORIGINS.get(here, f"docs/{here}"))

    def moved(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or (re.match(r"[a-z]+:", target) and not OWN.match(target)):
            return match[0]
        inside = OWN.match(target)
        path = target[inside.end() :] if inside else os.path.normpath(os.path.join(folder, unquote(target))).replace(os.sep, "/")
        if not (ROOT / path).exists():
            LOG.warning("%s: the link %s leads nowhere", here, match[2])
            return match[0]
        found = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") and not path.endswith(".py") else "")
        if not found:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"{match[1]}{SOURCE}{kind}/main/{path}{match[3]}"
        anchor = f"#{anchor}" if anchor else ""
        return f"{match[1]}{os.path.relpath(found, os.path.dirname(here) or '.').replace(os.sep, '/')}{anchor}{match[3]}"

    parts, start = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(moved, markdown[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*parts, LINK.sub(moved, markdown[start:])])
