"""Install commands for the project's own distributions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import importlib_metadata

from ..api_version import CORE
from ..foreign_json import NotJson, parse_object
from ..forks import held_off

NO_PLUGINS = frozenset({"all", "training"})
"""Extras that are not plugins."""


@held_off()
def known_plugins() -> dict[str, str]:
    """Return the project's plugins, installed or not, as extra → distribution, from the extras in core's metadata."""
    found = {}
    for requirement in importlib_metadata.requires(CORE) or []:
        match = re.match(r"(blazen-codec-[\w-]+).*;\s*extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[2] not in NO_PLUGINS:
            found[match[2]] = match[1]
    return found


def install_command(extra: str, distribution: str) -> str:
    """Return the command that installs one of the project's distributions.

    If core was installed from a checkout, which installers record (PEP 610), it names the folder there, else the distribution.
    """
    folder = extra if extra in NO_PLUGINS else f"plugins/{extra}"
    if (checkout := _checkout()) and (project := checkout / folder).is_dir():
        return f"pip install {shlex.quote(str(project))}"
    return f"pip install {distribution}"


def how_to_install() -> str:
    """Return a sentence on how to install codecs."""
    return f"Install one: {' or '.join(install_command(*known) for known in known_plugins().items())}"


def _checkout() -> Path | None:
    """Return the folder that core was installed from; `None` if it came from an index or an archive."""
    from urllib.request import url2pathname  # here, because listing codecs does not need it

    written = importlib_metadata.distribution(CORE).read_text("direct_url.json")
    try:
        url = urlsplit(str(parse_object(written)["url"])) if written else None
    except (NotJson, KeyError, ValueError):  # ignore invalid metadata of an installer
        return None
    return Path(url2pathname(url.path)) if url and url.scheme == "file" else None
