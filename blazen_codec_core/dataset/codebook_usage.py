"""Entries of each codebook that a dataset uses, as bit sets in the journal."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptFile, reason

ANEW = "Choose another folder, or remove the journal to make all shards again"


class CodebookUsage:
    """Set of the entries of each codebook that were used."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self._used: list[NDArray[np.bool_]] = []

    def add(self, codes: Sequence[NDArray[np.int32]]) -> None:
        """Add tokens, one array per codebook."""
        self._grow(len(codes))
        for used, code in zip(self._used, codes, strict=False):
            used[code.reshape(-1)] = True

    def add_packed(self, packed: Sequence[str]) -> None:
        """Add the result of `packed`; raise `CorruptFile` if it is damaged or has another codebook size."""
        self._grow(len(packed))
        for book, text in enumerate(packed):
            self._used[book] |= np.unpackbits(self._bits(text), count=self.entries).astype(bool)

    def _bits(self, text: str) -> NDArray[np.uint8]:
        expected = -(-self.entries // 8)
        try:
            bits = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), expected + 1)
        except (zlib.error, binascii.Error, ValueError) as error:
            raise CorruptFile(f"the codebook usage in the journal is damaged: {reason(error)}. {ANEW}") from error
        if len(bits) != expected:
            raise CorruptFile(f"the journal has codebooks of another size; expected {self.entries} entries. {ANEW}")
        return np.frombuffer(bits, np.uint8)

    @property
    def packed(self) -> tuple[str, ...]:
        """Compressed bit sets in base64, for the journal."""
        return tuple(base64.b64encode(zlib.compress(np.packbits(used).tobytes())).decode() for used in self._used)

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the entries used, per codebook."""
        return tuple(float(used.mean()) for used in self._used)

    def _grow(self, books: int) -> None:
        self._used += [np.zeros(self.entries, np.bool_) for _ in range(books - len(self._used))]
