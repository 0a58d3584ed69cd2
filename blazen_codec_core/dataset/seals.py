"""JSON records with a checksum, which detects changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import opened
from ..foreign_json import NotJson, parse_object

SEAL = b', "check": "'
HEX = 16
"""Length of a checksum in hexadecimal digits."""
LARGEST = 256 << 20
"""Largest record in bytes."""


def sealed(values: Mapping[str, Any], key: bytes = b"") -> bytes:
    """Serialize values as a line of JSON with a checksum.

    Args:
        key: Key of the checksum, up to 64 bytes.
    """
    body = json.dumps(values).encode()[:-1]
    return body + SEAL + _checksum(body, key) + b'"}'


def unsealed(line: bytes, key: bytes = b"") -> dict[str, Any]:
    """Parse a line of `sealed` with the same key.

    Raises:
        NotJson: The line was changed, or made with another key.
    """
    body, _, check = line.strip().rpartition(SEAL)
    found = parse_object(line, largest=LARGEST, most=LARGEST, lenient=True)  # paths may be no Unicode
    if check != _checksum(body, key) + b'"}':
        raise NotJson("was changed: its checksum does not match")
    del found["check"]
    return found


def digest_of(path: Path) -> str:
    """Return the digest of a file's content; raise `OSError` if it cannot be read."""
    with opened(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _checksum(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=HEX // 2).hexdigest().encode()
