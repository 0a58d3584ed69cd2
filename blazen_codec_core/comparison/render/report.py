"""The report of a comparison: one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from typing import Any

from ...files import replacing
from .. import serialize
from .html import page


def html(shown: Sequence[dict[str, Any]], facts: Sequence[dict[str, Any]], title: str = "Codecs compared") -> str:
    """The report, as text.

    Args:
        shown: What `serialize.shown` made of each recording.
        facts: What `serialize.facts` made of each.
    """
    data = {
        "title": title,
        "made": f"blazen-codec {version('blazen-codec-core')}",
        "measures": serialize.METRICS,
        "scales": serialize.scales(),
        "means": serialize.means(facts),
        "recordings": list(shown),
    }
    return page(title, data, [("report", "report.js")])


def write(text: str, path: str | PathLike[str]) -> int:
    """Writes a report, whole or not at all; gives its size in bytes.

    Raises:
        InvalidInput: The file cannot be written.
    """
    with replacing(path) as temporary:
        return temporary.write_bytes(text.encode())
