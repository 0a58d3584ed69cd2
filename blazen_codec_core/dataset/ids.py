"""Detection of duplicate ids by external sorting, in bounded memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

BYTES = 16
"""Size of an id's hash; among 10^9 ids, a collision has a probability of about 10^-20."""
AT_ONCE = 1 << 20


class Ids:
    """Hashes of ids in a memory-mapped file, sorted in place.

    Args:
        scratch: Folder for temporary files.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._files: list[IO[bytes]] = []
        self._hashes = self._file()

    def __enter__(self) -> Ids:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def add(self, identity: str) -> None:
        """Add an id."""
        self._hashes.write(_hash(identity))

    def repeats(self) -> Callable[[str], bool]:
        """Return a function that tells whether an id occurred before, when called with the same ids in the same order."""
        repeated, there = self._repeated(), self._file()
        if not len(repeated):
            return lambda _: False
        there.truncate(len(repeated))
        seen = np.memmap(there, np.bool_, "r+")

        def is_repeat(identity: str) -> bool:
            value = np.frombuffer(_hash(identity), f"S{BYTES}")[0]
            place = int(np.searchsorted(repeated, value))
            if place == len(repeated) or repeated[place] != value:
                return False
            before = bool(seen[place])
            seen[place] = True
            return before

        return is_repeat

    def _repeated(self) -> Any:
        """Return the sorted hashes that occur more than once."""
        self._hashes.flush()
        if not self._hashes.tell():
            return np.zeros(0, f"S{BYTES}")
        hashes: Any = np.memmap(self._hashes, f"S{BYTES}", "r+")
        hashes.sort()
        found = self._file()
        for start in range(0, len(hashes) - 1, AT_ONCE):
            some = hashes[start : start + AT_ONCE + 1]
            found.write(np.unique(some[1:][some[1:] == some[:-1]]).tobytes())
        found.flush()
        return np.memmap(found, f"S{BYTES}", "r") if found.tell() else np.zeros(0, f"S{BYTES}")

    def _file(self) -> IO[bytes]:
        self._files.append(tempfile.TemporaryFile(prefix=".", dir=self._scratch))  # noqa: SIM115 closed in __exit__
        return self._files[-1]


def _hash(identity: str) -> bytes:
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=BYTES).digest()
