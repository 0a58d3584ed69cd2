"""Install commands for the project's own distributions and their extras."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import importlib_metadata

from .api_version import CORE
from .errors import EngineNotAvailable
from .foreign_json import NotJson, parse_object
from .forks import held_off

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


def install_command(extra: str, distribution: str, *extras: str) -> str:
    """Return the command that installs one of the project's distributions, with extras of its own.

    If core was installed from a checkout, which installers record (PEP 610), it names the folder there, else the distribution.

    Args:
        extra: Core's extra that installs the distribution; empty for core itself.
    """
    folder = extra if not extra or extra in NO_PLUGINS else f"plugins/{extra}"
    found = checkout / folder if (checkout := _checkout()) else None
    target, wanted = str(found) if found and found.is_dir() else distribution, ",".join(extras)
    return f"pip install {shlex.quote(f'{target}[{wanted}]' if extras else target)}"


def missing(what: str, *extras: str) -> EngineNotAvailable:
    """Return the error that something needs extras of core, such as `missing("datasets need filelock", "dataset")`."""
    return EngineNotAvailable(f"{what}: {install_command('', CORE, *extras)}")


def how_to_install() -> str:
    """Return a sentence on how to install codecs."""
    return f"Install one: {' or '.join(install_command(*known) for known in known_plugins().items())}"


def _checkout() -> Path | None:
    """Return the folder that core was installed from; `None` if it came from an index or an archive."""
    from urllib.request import url2pathname  # here, because listing codecs does not need it

    try:
        written = importlib_metadata.distribution(CORE).read_text("direct_url.json")
        url = urlsplit(str(parse_object(written)["url"])) if written else None
    except (importlib_metadata.PackageNotFoundError, NotJson, KeyError, ValueError):  # no metadata, or an installer's are invalid
        return None
    return Path(url2pathname(url.path)) if url and url.scheme == "file" else None
