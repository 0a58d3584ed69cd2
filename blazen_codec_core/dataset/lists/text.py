"""Text files of lists: optionally compressed, in UTF-8 or UTF-16; other bytes are kept as in file names."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ...errors import CodecError, CorruptFile, reason

DECOMPRESSORS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LONGEST_LINE = 64 << 20
"""Longest line, or element of a JSON array, in characters."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a list. Bytes that are not UTF-8 become surrogates, as in file names.

    Raises:
        CorruptFile: The file cannot be read, or is not text.
    """
    try:
        with path.open("rb") as plain:
            head = plain.read(8)
        kind = next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), "")
        with DECOMPRESSORS[kind](path) if kind else path.open("rb") as raw:
            if kind:
                head = raw.read(8)
                raw.seek(0)
            encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
            errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
            yield io.TextIOWrapper(raw, encoding, errors=errors, newline="")
    except CodecError:
        raise
    except (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, MemoryError) as error:
        raise CorruptFile(f"{path} cannot be read as a list of recordings: {reason(error)}") from error


def lines(text: TextIO, path: Path) -> Iterator[str]:
    """Yield lines without their ends.

    Raises:
        CorruptFile: A line is too long for a list.
    """
    while line := text.readline(LONGEST_LINE):
        if len(line) >= LONGEST_LINE:
            raise CorruptFile(f"{path} cannot be read as a list of recordings: a line is longer than {LONGEST_LINE >> 20} MiB")
        yield line.rstrip("\r\n")
