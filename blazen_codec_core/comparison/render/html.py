"""Self-contained HTML pages, which need no network and no other files."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

PACKAGE = __name__.partition(".")[0]
SHARED = ("elements.js", "player.js", "timeline.js", "figures.js", "blind.js", "recording.js")
"""Scripts of every page, in `web/shared`, in this order."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy of pages opened from a file: nothing is loaded from anywhere."""


def source(folder: str, name: str) -> str:
    """Read a file of a folder in `web`."""
    return files(PACKAGE).joinpath("web", folder, name).read_text("utf-8")


def as_script(value: Any) -> str:
    """Serialize a value to JSON that is safe within a script element, whatever strings it contains."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def page(title: str, data: Any, scripts: Sequence[tuple[str, str]], policy: str = POLICY, style: str = "") -> str:
    """Build a page.

    Args:
        title: Title as plain text.
        data: Data for the scripts, serialized to JSON.
        scripts: Scripts to run after the shared ones, as pairs of a folder in `web` and a file name.
        policy: Content security policy.
        style: CSS to append to the shared style.
    """
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy),
        "style": source("shared", "style.css") + style,
        "data": as_script(data),
        "scripts": "\n".join(source(*script) for script in [*(("shared", name) for name in SHARED), *scripts]),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], source("shared", "page.html"))
