"""Records with a checksum: read back, each is what was written, or an error."""

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
"""Digits of a checksum."""
LARGEST = 256 << 20
"""Bytes of a note."""


def sealed(values: Mapping[str, Any], key: bytes = b"") -> bytes:
    """Return values as a line of JSON with a checksum.

    Args:
        key: What else the checksum depends on, up to 64 bytes.
    """
    body = json.dumps(values).encode()[:-1]
    return body + SEAL + _checksum(body, key) + b'"}'


def unsealed(line: bytes, key: bytes = b"") -> dict[str, Any]:
    """Return the values of a line that `sealed` made; arguments as there.

    Raises:
        NotJson: It is another line, or was changed.
    """
    body, _, check = line.strip().rpartition(SEAL)
    found = parse_object(line, largest=LARGEST, most=LARGEST, lenient=True)  # paths may be no Unicode
    if check != _checksum(body, key) + b'"}':
        raise NotJson("is not as it was written: its checksum is another")
    del found["check"]
    return found


def digest_of(path: Path) -> str:
    """Return what tells the content of a file from any other; raises `OSError` where it cannot be read."""
    with opened(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _checksum(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=HEX // 2).hexdigest().encode()
