"""Recordings told from what they were when they were tokenised: by size and time, or by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from .items import AudioItem
from .seals import digest_of

Verify = Literal["times", "content"]
"""How a recording is known again: by its size and the time of its last change, or by all of its bytes."""
LENGTH = 16
"""Characters of a fingerprint."""
NONE = "-" * LENGTH
"""In place of that of a recording that has no row."""
GONE = "?" * LENGTH
"""Of a recording that is not there."""


class Fingerprints:
    """Fingerprints of recordings; a tar or Parquet file is looked at once, however many of them are in it.

    Args:
        root: What the paths of recordings are relative to.
    """

    def __init__(self, root: Path, verify: Verify) -> None:
        self._root, self._verify = root, verify
        self._known: dict[str, str] = {}

    def of(self, item: AudioItem) -> str:
        """Return that of a recording: of the file that it is, or that it is in."""
        if item.member is None and item.cell is None:
            return self._look(item.path)
        if item.path not in self._known:
            self._known[item.path] = self._look(item.path)
        found = self._known[item.path]
        if item.cell is not None and item.member and os.path.isfile(self._root / item.member):
            return _short(found, self._look(item.member))  # the cell may be empty, and say where the recording is
        return found

    def _look(self, name: str) -> str:
        path = self._root / name
        try:
            status = os.stat(path)
            known = digest_of(path) if self._verify == "content" else status.st_mtime_ns
        except (OSError, ValueError):
            return GONE
        return _short(status.st_size, known)


def _short(*values: object) -> str:
    return hashlib.blake2b(repr(values).encode(), digest_size=LENGTH // 2).hexdigest()
