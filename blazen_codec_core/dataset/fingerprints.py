"""Fingerprints of recordings, which detect changes since tokenization: by size and time, or by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from .items import AudioItem
from .seals import digest_of

Verify = Literal["times", "content"]
"""Method to detect changed recordings: by size and modification time, or by all bytes."""
LENGTH = 16
"""Length of a fingerprint in characters."""
NONE = "-" * LENGTH
"""Fingerprint of a recording without a row."""
GONE = "?" * LENGTH
"""Fingerprint of a missing recording."""


class Fingerprints:
    """Fingerprints of recordings. A tar or Parquet file is read once for all its recordings.

    Args:
        root: Base folder of the recordings' paths.
    """

    def __init__(self, root: Path, verify: Verify) -> None:
        self._root, self._verify = root, verify
        self._known: dict[str, str] = {}

    def of(self, item: AudioItem) -> str:
        """Return the fingerprint of a recording, which is that of its file or container file."""
        if item.member is None and item.cell is None:
            return self._look(item.path)
        if item.path not in self._known:
            self._known[item.path] = self._look(item.path)
        found = self._known[item.path]
        if item.cell is not None and item.member and os.path.isfile(self._root / item.member):
            return _short(found, self._look(item.member))  # the cell may be empty and name a file instead
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
