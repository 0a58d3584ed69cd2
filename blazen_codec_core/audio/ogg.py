"""Ogg pages: concatenated streams, damaged and missing pages (RFC 3533)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from .layout import Layout
from .parts import Span, read_at, size_of, splice

HEADER = struct.Struct("<4sBBqIIIB")
MAGIC, BEGINS, ENDS = b"OggS", 2, 4
VORBIS = b"\x01vorbis"
LARGEST = HEADER.size + 255 + 255 * 255
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Page:
    """A page."""

    span: Span
    flags: int
    serial: int
    number: int
    position: int


@dataclass
class _Link:
    """A stream, from its first page to its last."""

    serial: int
    number: int
    spans: list[Span] = field(default_factory=list)
    ended: bool = False
    position: int = 0

    def add(self, page: Page) -> None:
        if self.spans and self.spans[-1].stop == page.span.start:
            self.spans[-1] = Span(self.spans[-1].start, page.span.stop)
        else:
            self.spans.append(page.span)
        self.number, self.ended = page.number, bool(page.flags & ENDS)
        self.position = max(self.position, page.position)


def layout(file: BinaryIO) -> Layout:
    """Split a file into its concatenated streams, which may share serial numbers.

    Reports pages with wrong checksums, gaps in page numbers, and a missing last page.
    """
    links: list[_Link] = []
    missing: list[str] = []
    at = 0
    for page in pages(file):
        if page.span.start != at:
            missing.append(f"{page.span.start - at} bytes at byte {at} are not a complete page")
        at = page.span.stop
        if page.flags & BEGINS:
            if links and not links[-1].ended:
                missing.append(f"a stream is truncated before its last page, at byte {page.span.start}")
            links.append(_Link(page.serial, page.number))
        elif not links or page.serial != links[-1].serial:
            missing.append(f"the page at byte {page.span.start} belongs to an unknown stream")
            continue
        elif page.number != (links[-1].number + 1) & 0xFFFFFFFF:
            missing.append(f"pages {links[-1].number + 1} to {page.number - 1} are missing at byte {page.span.start}")
        links[-1].add(page)
    if links and not links[-1].ended:
        missing.append(f"its last page is missing; the {size_of(file) - at} bytes at byte {at} are not a complete page")
    is_vorbis = read_at(file, HEADER.size + 1, len(VORBIS)) == VORBIS  # positions of other codings have another unit
    said, positions = _few(missing), tuple(link.position for link in links) if is_vorbis else ()
    if len(links) == 1 and len(links[0].spans) == 1 and links[0].spans[0] == Span(0, size_of(file)):
        return Layout(missing=said, positions=positions)
    return Layout(tuple(splice(file, *link.spans) for link in links), said, positions=positions)


def _few(missing: list[str]) -> str | None:
    if not missing:
        return None
    return missing[0] + (f" (and {len(missing) - 1} more problems)" if len(missing) > 1 else "")


def pages(file: BinaryIO) -> Iterator[Page]:
    """Yield the pages with correct checksums, in order; other data is skipped."""
    size, at = size_of(file), 0
    buffer, begin = b"", 0
    while at < size:
        if at + LARGEST > begin + len(buffer):
            buffer, begin = read_at(file, at, 1 << 20), at
        page = _page(buffer, at - begin, at)
        if page is None:
            following = buffer.find(MAGIC, at - begin + 1)
            at = begin + (following if following >= 0 else max(at - begin + 1, len(buffer) - len(MAGIC) + 1))
            continue
        yield page
        at = page.span.stop


def _page(buffer: bytes, at: int, where: int) -> Page | None:
    """Parse the page at an index of a buffer (offset `where` in the file); `None` if missing, damaged or cut."""
    if buffer[at : at + 4] != MAGIC or len(buffer) < at + HEADER.size:
        return None
    _, version, flags, position, serial, number, said, lacing = HEADER.unpack_from(buffer, at)
    if version:
        return None
    body = at + HEADER.size + lacing
    stop = body + sum(buffer[at + HEADER.size : body])
    if stop > len(buffer) or checksum(buffer[at : at + 22] + bytes(4) + buffer[at + 26 : stop]) != said:
        return None
    return Page(Span(where, where + stop - at), flags, serial, number, position)


def checksum(data: bytes) -> int:
    """Compute Ogg's CRC-32: polynomial 0x04C11DB7, most significant bit first, initial value 0, not inverted.

    It equals zlib's CRC of the bit-reversed bytes, without zlib's inversions.
    """
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def is_multiplexed(head: bytes) -> bool:
    """Tell from the first bytes of a file whether several streams are multiplexed, as with video."""
    first = _page(head, 0, 0)
    second = _page(head, first.span.stop, 0) if first else None
    return bool(first and second and second.flags & BEGINS and not first.flags & ENDS)
