"""Actual length of FLAC files, independent of the header (RFC 9639)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from .layout import Layout
from .mpeg import after_tags
from .parts import Span, find, read_at, size_of, splice

MAGIC = b"fLaC"
STREAMINFO = 34
_TOTAL_AT = 21
"""Offset of the byte with the first 4 of the 36 bits of the sample count."""
_FRAME = 1 << 16
_MOST_BLOCKS = 10_000
"""Most metadata blocks."""
_MOST_TAIL = 1 << 20
_MOST_TRIED = 64
"""Most candidate frame headers that are tried in the search for the last frame."""
BLOCK_SIZES = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Block sizes in samples by header code. 0: explicit in the header, or reserved."""
RATES = (0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
"""Sample rates in Hz by header code. Higher codes store the rate explicitly, in some unit."""
_RATE_BYTES, _RATE_UNITS = {12: 1, 13: 2, 14: 2}, {12: 1000, 13: 1, 14: 10}
ID3_TAIL = 128
CHECKSUM = 2
"""Size of a frame's checksum in bytes."""


@dataclass(frozen=True)
class _Info:
    """Beginning of a FLAC stream: its position, its first frame, and its STREAMINFO."""

    start: int
    frames_at: int
    block: int
    sample_rate: int
    channels: int
    total: int


@dataclass(frozen=True)
class _Frame:
    """A frame header.

    Attributes:
        at: Offset in the file.
        first: Index of the first sample in the stream.
        samples: Samples per channel.
        sample_rate: Sample rate in Hz; 0 for the stream's.
    """

    at: int
    first: int
    samples: int
    sample_rate: int


def layout(file: BinaryIO) -> Layout:
    """Find the stream of a file, with the sample count derived from its last frame.

    A missing or wrong count in the header is corrected; if it was larger, audio is missing. A second stream in the file is
    reported, because decoders treat it differently.
    """
    start, stop = after_tags(file, 0), size_of(file)
    own = _info(file, start)
    for at in find(file, MAGIC, own.frames_at if own else stop, stop):
        if _info(file, at) is not None:
            link, wrong = _link(file, start, at)
            joined = f"a second stream begins at byte {at}; a FLAC file has one"
            return Layout((link or splice(file, Span(start, at)),), wrong or joined)
    link, wrong = _link(file, start, stop)
    return Layout((link,) if link else None, wrong)


def _link(file: BinaryIO, start: int, stop: int) -> tuple[BinaryIO | None, str | None]:
    """Return the repaired stream (`None` if it is intact), and a description of what is missing."""
    info = _info(file, start)
    if info is None:
        return None, None
    last, end = _last(file, info, stop)
    if last is None:
        return None, None
    if last.sample_rate not in (0, info.sample_rate):
        return None, f"its header states {info.sample_rate} Hz, but its last frame {last.sample_rate} Hz"
    whole = end is not None
    there, end = (last.first + last.samples, end) if end is not None else (last.first, last.at)
    if there == info.total and end == stop:
        return None, None
    missing = None
    if info.total > there:
        seconds = f"{info.total / info.sample_rate:.2f} s), but {there} ({there / info.sample_rate:.2f} s) exist"
        missing = f"its header states {info.total} samples ({seconds}"
    elif not whole:
        missing = f"its last frame, after {there} samples ({there / info.sample_rate:.2f} s), is cut"
    head = bytearray(read_at(file, start, info.frames_at - start))
    head[_TOTAL_AT : _TOTAL_AT + 5] = (head[_TOTAL_AT] & 0xF0 | there >> 32).to_bytes(1) + (there & 0xFFFFFFFF).to_bytes(4)
    return splice(file, bytes(head), Span(info.frames_at, end)), missing


def _info(file: BinaryIO, at: int) -> _Info | None:
    """Parse the beginning of a FLAC stream at an offset; `None` if there is none."""
    start = at
    head = read_at(file, at, 8 + STREAMINFO)
    if len(head) < 8 + STREAMINFO or head[:4] != MAGIC or head[4] & 0x7F or int.from_bytes(head[5:8]) != STREAMINFO:
        return None
    packed = int.from_bytes(head[18:26])
    rate, channels, total = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if not rate:
        return None
    at += 4
    for _ in range(_MOST_BLOCKS):
        block = read_at(file, at, 4)
        if len(block) < 4:
            break
        at += 4 + int.from_bytes(block[1:])
        if block[0] & 0x80:
            return _Info(start, at, int.from_bytes(head[8:10]), rate, channels, total)
    return None


def _last(file: BinaryIO, info: _Info, stop: int) -> tuple[_Frame | None, int | None]:
    """Find the last frame of a stream and its end offset, which is `None` if the frame is cut."""
    if stop - ID3_TAIL > info.frames_at and read_at(file, stop - ID3_TAIL, 3) == b"TAG":
        stop -= ID3_TAIL
    if stop <= info.frames_at:
        return None, None
    tail = _FRAME
    while True:
        begin = max(info.frames_at, stop - tail)
        data = read_at(file, begin, stop - begin)
        ends = len(data)
        at = len(data)
        later: int | None = None
        tried = 0
        while (at := data.rfind(b"\xff", 0, at)) >= 0:
            frame = _frame(data, at, begin, info)
            if frame is None:
                continue
            tried += 1
            if tried > _MOST_TRIED:
                return None, None
            most = frame.samples * info.channels * 5 + 1024  # largest size of such a frame in bytes
            if ends - at <= most and crc16(data[at:ends]) == 0:
                return frame, begin + at + _without_zeros(data[at:ends])
            if later is None and (size := _ends_after(data[at : at + most])):
                is_due = frame.first < info.total <= frame.first + frame.samples
                if is_due or (not info.total and len(set(data[at + size :])) == 1):  # padding
                    return frame, begin + at + size
            if (
                later is not None and later - at <= most and crc16(data[at:later]) == 0
            ):  # the next candidate is a real frame, which is cut
                cut = _frame(data, later, begin, info)
                return cut, None
            later = at
        if begin == info.frames_at or tail >= _MOST_TAIL:
            return None, None
        tail *= 4


def _frame(data: bytes, at: int, begin: int, info: _Info) -> _Frame | None:
    """Parse a frame header at an index of data that starts at offset `begin`; `None` if there is none."""
    head = data[at : at + 16]
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size, rate = head[2] >> 4, head[2] & 15
    length = _coded_length(head[4])
    if not size or rate == 15 or head[3] >> 4 > 10 or not length:
        return None
    number = head[4] if length == 1 else head[4] & (0x7F >> length)
    for byte in head[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    end = 4 + length
    samples = BLOCK_SIZES[size]
    if size in (6, 7):
        width = size - 5
        samples, end = int.from_bytes(head[end : end + width]) + 1, end + width
    rate_at, end = end, end + _RATE_BYTES.get(rate, 0)
    if not samples or end >= len(head) or crc8(head[: end + 1]):
        return None
    sample_rate = int.from_bytes(head[rate_at:end]) * _RATE_UNITS[rate] if rate in _RATE_UNITS else RATES[rate]
    return _Frame(begin + at, number if head[1] & 1 else number * info.block, samples, sample_rate)


def _coded_length(byte: int) -> int:
    """Return the length of a UTF-8-like coded number from its first byte; 0 if invalid."""
    if byte < 0x80:
        return 1
    length = 8 - (~byte & 0xFF).bit_length()
    return length if 2 <= length <= 7 else 0


def _without_zeros(data: bytes) -> int:
    """Return the size of a FLAC frame in bytes, given data that may end with zeros; up to two zeros are included.

    Trailing zeros do not change the checksum, whose own bytes may be zeros too, so they cannot be distinguished. Decoders ignore
    one or two surplus zeros.
    """
    least = len(data.rstrip(b"\0"))
    return min(len(data), next(size for size in range(least, len(data) + 1) if crc16(data[:size]) == 0) + CHECKSUM)


def _ends_after(data: bytes) -> int:
    """Return the size in bytes of a FLAC frame with its checksum at the start of data; 0 if no end is found."""
    table, value = _table(16, 0x8005), 0
    for number, byte in enumerate(data, 1):
        value = value << 8 & 0xFFFF ^ table[value >> 8 ^ byte]
        if not value:
            following = data[number : number + CHECKSUM]
            return number + len(following) - len(following.lstrip(b"\0"))  # zeros may belong to the checksum
    return 0


@cache
def _table(width: int, polynomial: int) -> tuple[int, ...]:
    """Build the lookup table of a CRC, most significant bit first."""
    top, mask, table = 1 << width - 1, (1 << width) - 1, []
    for byte in range(256):
        value = byte << width - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return tuple(table)


def crc8(data: bytes) -> int:
    """8-bit checksum of a FLAC frame's header; 0 over a header with its checksum."""
    table, value = _table(8, 0x07), 0
    for byte in data:
        value = table[value ^ byte]
    return value


def crc16(data: bytes) -> int:
    """16-bit checksum of a FLAC frame; 0 over a frame with its checksum."""
    table, value = _table(16, 0x8005), 0
    for byte in data:
        value = value << 8 & 0xFFFF ^ table[value >> 8 ^ byte]
    return value
