"""One HTML file that holds all that it needs: no network, no other files."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

PACKAGE = __name__.partition(".")[0]
SHARED = ("elements.js", "player.js", "timeline.js", "figures.js", "blind.js", "recording.js")
"""What every page needs, in `web/shared`, in this order."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Of what is opened from a file: nothing from anywhere."""


def source(folder: str, name: str) -> str:
    """A file of a folder in `web`."""
    return files(PACKAGE).joinpath("web", folder, name).read_text("utf-8")


def as_script(value: Any) -> str:
    """JSON that can stand within a script element, whatever strings are in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def page(title: str, data: Any, scripts: Sequence[tuple[str, str]], policy: str = POLICY, style: str = "") -> str:
    """A whole page.

    Args:
        data: For its scripts, as JSON.
        scripts: Folders in `web` and names of files in them, to run after the shared ones.
        policy: Its content security policy.
        style: That it has besides.
    """
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy),
        "style": source("shared", "style.css") + style,
        "data": as_script(data),
        "scripts": "\n".join(source(*at) for at in [*(("shared", name) for name in SHARED), *scripts]),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], source("shared", "page.html"))
