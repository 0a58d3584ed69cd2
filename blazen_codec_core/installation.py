"""How the project's own plugins are installed: from where this core was."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import importlib_metadata

from .generation import CORE


def known_plugins() -> dict[str, str]:
    """The project's own plugins, whether installed or not: extra to distribution, as core's package metadata lists them."""
    found = {}
    for requirement in importlib_metadata.requires(CORE) or []:
        match = re.match(r"(blazen-codec-[\w-]+).*;\s*extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[2] != "all":
            found[match[2]] = match[1]
    return found


def install_command(extra: str, distribution: str) -> str:
    """What installs one of the project's plugins: from the checkout that core was installed from, else from the index.

    Where core came from, the installer has written down (PEP 610).
    """
    if (checkout := _checkout()) and (project := checkout / "plugins" / extra).is_dir():
        return f"pip install {shlex.quote(str(project))}"
    return f"pip install {distribution}"


def how_to_install() -> str:
    """One sentence that says how to get codecs."""
    return f"Install one: {' or '.join(install_command(*known) for known in known_plugins().items())}"


def _checkout() -> Path | None:
    """The folder that core was installed from, if it was one and is still there."""
    written = importlib_metadata.distribution(CORE).read_text("direct_url.json")
    url = urlsplit(json.loads(written)["url"]) if written else None
    return Path(url2pathname(url.path)) if url and url.scheme == "file" else None
