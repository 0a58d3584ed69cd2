"""Members of a tar with their offsets, for random access."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..audio.parts import Span, Spliced, splice
from ..errors import CorruptFile, InvalidInput, reason
from ..files import opened

SUFFIX = ".tar"
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""Magic bytes of compressed files, and the command that decompresses them."""
LARGEST_EXTENSION = 1 << 20
"""Largest header extension (GNU long name or PAX) in bytes."""
LONGEST_NUMBER = 20
"""Most digits of a number in an extension."""
EXTENSIONS = frozenset({
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
})  # fmt: skip
"""Types of headers that extend the next header, or all following ones."""
WITH_DATA = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE})
MAP_GOES_ON, MORE_MAP_GOES_ON = 482, 504
"""Offsets of the flag that the map of a sparse member continues: in a header, and in an extension block."""
SPARSE = "GNU.sparse."
"""Prefix of PAX keys of sparse members."""
KEPT = frozenset({"path", "linkpath", "size", f"{SPARSE}name"})
"""PAX keys that are kept, so that memory is bounded."""


class Window(Spliced):
    """A range of a file as a file object; closing it closes the underlying file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__(file, Span(offset, offset + size))
        self._file = file

    def close(self) -> None:
        self._file.close()
        super().close()


class Member(NamedTuple):
    """A member of a tar.

    Attributes:
        offset: Offset of the content in the tar, in bytes.
        size: Size in bytes.
        problem: Reason why those bytes are not the member's content; empty if they are.
    """

    name: str
    offset: int
    size: int
    problem: str = ""

    def content(self, tar: BinaryIO) -> BinaryIO:
        """Return the content as a file object over the open tar."""
        return splice(tar, Span(self.offset, self.offset + self.size))


def is_tar(name: str) -> bool:
    """Tell whether a file name is that of a tar, compressed or not."""
    return name.lower().endswith((SUFFIX, *COMPRESSED_SUFFIXES))


def members(path: Path) -> Iterator[Member]:
    """Yield the complete members of a tar except folders, then raise if the tar is truncated.

    Raises:
        InvalidInput: The tar is compressed, which prevents random access.
        CorruptFile: The file is not a tar, is damaged or is truncated.
    """
    try:
        with opened(path) as file:
            head = file.read(8)
            for magic, undo in COMPRESSED.items():
                if head.startswith(magic):
                    raise InvalidInput(f"{path} is compressed, which prevents random access. Decompress it with {undo}")
            file.seek(0)
            yield from _members(file, path, file.seek(0, io.SEEK_END))
    except (InvalidInput, CorruptFile):
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise CorruptFile(f"{path} cannot be read as a tar: {reason(error)}") from error


def _members(file: BinaryIO, path: Path, size: int) -> Iterator[Member]:
    """Read headers sequentially. Each step advances, and memory is bounded by the largest extension."""
    at, told, everywhere = 0, dict[str, str](), dict[str, str]()
    while True:
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) == tarfile.BLOCKSIZE == block.count(0):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not at:
                raise
            raise CorruptFile(f"{path} is truncated or damaged at byte {at}: it has no end marker") from error
        own, at = at, at + tarfile.BLOCKSIZE
        if info.type in EXTENSIONS:
            if not 0 <= info.size <= LARGEST_EXTENSION:
                raise CorruptFile(
                    f"{path} is damaged at byte {own}: a header extension has {info.size} bytes; "
                    f"at most {LARGEST_EXTENSION} are read"
                )
            text = file.read(info.size)
            if len(text) < info.size:
                raise CorruptFile(f"{path} is truncated in a header at byte {own}")
            found = _extension(info.type, text)
            (everywhere if info.type == tarfile.XGLTYPE else told).update(found)
            at += _padded(info.size)
            continue
        told = {**everywhere, **told}
        name, length = told.get("path", info.name).rstrip("/"), _length(told, info)
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(SPARSE) for key in told)
        name = told.get(f"{SPARSE}name", name)
        has_data = info.type in WITH_DATA or info.type not in tarfile.SUPPORTED_TYPES
        if length < 0:
            raise CorruptFile(f"{path} is damaged at byte {own}: {name!r} has a size of {length} bytes")
        flag = MAP_GOES_ON
        while info.type == tarfile.GNUTYPE_SPARSE and block[flag]:
            file.seek(at)
            block, flag = file.read(tarfile.BLOCKSIZE), MORE_MAP_GOES_ON
            at += tarfile.BLOCKSIZE
            if len(block) < tarfile.BLOCKSIZE:
                raise CorruptFile(f"{path} is truncated in a header at byte {own}")
        if has_data and at + length > size:
            raise CorruptFile(f"{path} is truncated in {name}")
        if not info.isdir():
            yield Member(name, at, length if has_data else 0, _problem(info, told, sparse))
        at += _padded(length) if has_data else 0
        told = {}


def _length(told: dict[str, str], info: tarfile.TarInfo) -> int:
    text = told.get("size", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else info.size if not text else -1


def _problem(info: tarfile.TarInfo, told: dict[str, str], is_sparse: bool) -> str:
    """Return the reason why the bytes of a member are not its content; empty if they are."""
    if is_sparse:
        return "it is sparse, which is not supported. Write the tar without --sparse"
    if info.islnk() or info.issym():
        target = told.get("linkpath", info.linkname)
        return f"it is a link to {target!a:.200}. Write the tar with --dereference --hard-dereference"
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        return "it is a device or a pipe"
    return "" if info.isreg() else f"it has the unsupported type {info.type!r}"


def _extension(kind: bytes, text: bytes) -> dict[str, str]:
    """Parse names, sizes and sparse keys of a header extension, by keyword."""
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        key = "path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {key: text.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    found, at = dict[str, str](), 0
    while at < len(text) and text[at]:
        length, blank, _ = text[at : at + LONGEST_NUMBER].partition(b" ")
        if not blank or not length.isdigit() or not len(length) + 3 <= int(length) <= len(text) - at:
            raise CorruptFile("a header extension is damaged")
        keyword, equals, value = text[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        if not equals:
            raise CorruptFile("a header extension is damaged")
        name = keyword.decode("utf-8", "replace")
        if name in ("path", "linkpath", "size") or name.startswith(SPARSE):
            kept = name if name in KEPT else f"{SPARSE}other"
            found[kept] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return found


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
