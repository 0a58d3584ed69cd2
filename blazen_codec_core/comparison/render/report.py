"""Report of a comparison: one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from typing import Any

from ...files import replacing
from .. import serialize
from .html import page


def html(recordings: Sequence[dict[str, Any]], facts: Sequence[dict[str, Any]], title: str = "Codecs compared") -> str:
    """Build the HTML of a report.

    Args:
        recordings: Data of each recording, from `serialize.page_data`.
        facts: Numbers of each recording, from `serialize.facts`.
        title: Title of the page.
    """
    data = {
        "title": title,
        "made": f"blazen-codec {version('blazen-codec-core')}",
        "measures": serialize.METRICS,
        "scales": serialize.scales(),
        "means": serialize.means(facts),
        "recordings": list(recordings),
    }
    return page(title, data, [("report", "report.js")])


def write(text: str, path: str | PathLike[str]) -> int:
    """Write a report atomically; return its size in bytes.

    Raises:
        InvalidInput: The file cannot be written.
    """
    with replacing(path) as temporary:
        return temporary.write_bytes(text.encode())
