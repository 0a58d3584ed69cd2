"""Actual frames of MPEG audio (MP3), independent of headers and estimates (ISO/IEC 11172-3 and 13818-3).

Without a stated length, decoders estimate it from the first frame's bitrate and the file size, embedded pictures included, and
stop there. Therefore frames are counted, and each stream gets a header frame with the count.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from .layout import AS_IT_IS, Layout
from .parts import Span, read_at, size_of, splice

RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
"""Sample rates of MPEG 2.5, none, 2 and 1, in hertz."""
_MPEG_1 = 3
BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bitrates in kbit/s by (is MPEG 1, layer)."""
_BLOCK = 1 << 20
_LARGEST_FRAME = 4 << 10
_SYNC = re.compile(rb"\xff(?=[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef])", re.DOTALL)
"""Pattern of frame headers, which is rare in other data."""
_COUNTED, _SIZED = 1, 2
"""Flags of a Xing header: frame count present, byte count present."""
_XING_FIELDS = ((1, 4), (2, 4), (4, 100), (8, 4))
_LAME = 36
"""Size of LAME's extension of a Xing header in bytes."""
_DECODER_DELAY = 529
"""Delay of a decoder in samples."""
_GAPS_AT = 21
"""Offset in LAME's extension of the number of padding samples at either end."""


@dataclass(frozen=True)
class Frame:
    """Header of an MPEG audio frame.

    Attributes:
        version: Version code of the header.
        layer: Layer, 1 to 3.
        sample_rate: Sample rate in Hz.
        channels: 1 or 2.
        size: Size in bytes, including the header.
        samples: Samples per channel.
        side_info: Offset of a Xing header in bytes.
    """

    version: int
    layer: int
    sample_rate: int
    channels: int
    size: int
    samples: int
    side_info: int

    @property
    def stream(self) -> tuple[int, int, int]:
        """Version, layer and sample rate, which all frames of one stream share."""
        return self.version, self.layer, self.sample_rate


def frame_at(data: bytes, at: int) -> Frame | None:
    """Parse a frame header at an index; `None` if there is none, or it has the free format."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    bitrate, rate, padding, mode = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1, data[at + 3] >> 6
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    first, sample_rate = version == _MPEG_1, RATES[version][rate]
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    unit = 4 if layer == 1 else 1
    size = (samples // 8 * 1000 * BITRATES[first, layer][bitrate - 1] // unit // sample_rate + padding) * unit
    channels = 1 if mode == 3 else 2
    side_info = 4 + ((32, 17) if first else (17, 9))[channels == 1]
    return Frame(version, layer, sample_rate, channels, size, samples, side_info)


def begins(head: bytes) -> bool:
    """Tell whether a file begins with frames, possibly after other bytes."""
    for found in _SYNC.finditer(head):
        at = found.start()
        frame = frame_at(head, at)
        if frame is not None and _goes_on(head, at, frame, frames=2 if not at else 3 if at < _LARGEST_FRAME else 5):
            return True
    return False


def first_frame(file: BinaryIO) -> int | None:
    """Return the offset of the first MPEG frame; `None` if there is none."""
    found = next(_frames(file), None)
    return None if found is None else found[0].start


def _goes_on(data: bytes, at: int, frame: Frame, frames: int = 2) -> bool:
    """Tell whether a frame starts a run of `frames` frames of one stream, or a shorter run that ends with the data."""
    for _ in range(frames - 1):
        at += frame.size
        if at == len(data):
            return True
        following = frame_at(data, at)
        if following is None or following.stream != frame.stream:
            return False
        frame = following
    return True


def is_adts(head: bytes) -> bool:
    """Tell whether a file begins with two ADTS (AAC) frames."""
    at = 0
    for _ in range(2):
        if at + 6 > len(head) or head[at] != 0xFF or head[at + 1] & 0xF6 != 0xF0:
            return False
        at += (head[at + 3] & 3) << 11 | head[at + 4] << 3 | head[at + 5] >> 5
    return True


def after_tags(file: BinaryIO, at: int) -> int:
    """Return the offset after the ID3v2 tags at `at`."""
    while (tag := read_at(file, at, 10))[:3] == b"ID3" and len(tag) == 10:
        at += _tag_size(tag)
    return at


def _tag_size(tag: bytes) -> int:
    """Return the size of an ID3v2 tag in bytes, from its first ten bytes."""
    size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
    return 10 + size + (10 if tag[5] & 0x10 else 0)


@dataclass
class _Link:
    """A stream: its first frame, common properties, optional header frame, and runs of contiguous frames."""

    first: bytes
    stream: tuple[int, int, int]
    header: bytes | None
    frames: int = 0
    passed_over: int = 0
    runs: list[Span] = field(default_factory=list)

    def add(self, span: Span) -> None:
        self.frames += 1
        self.passed_over += span.start - self.runs[-1].stop if self.runs else 0
        if self.runs and self.runs[-1].stop == span.start:
            self.runs[-1] = Span(self.runs[-1].start, span.stop)
        else:
            self.runs.append(span)


def layout(file: BinaryIO) -> Layout:
    """Find the streams of a file, each with a header frame that states the frame count.

    A header frame inside the file starts another, concatenated stream. Tags and data between frames are removed. Streams of free
    format are left to the decoder.
    """
    links: list[_Link] = []
    for span, frame, data in _frames(file):
        header = data if _header_fields(data, frame) is not None else None
        if header is not None or not links or frame.stream != links[-1].stream:
            links.append(_Link(data, frame.stream, header))
        if header is None:
            links[-1].add(span)
    links = [link for link in links if link.frames]
    if not links:
        return AS_IT_IS
    passed_over = sum(link.passed_over for link in links)
    said = [wrong for link in links if (wrong := _wrong_count(link))]
    remarks = (f"{passed_over} bytes between its frames were skipped",) if passed_over else ()
    given = tuple(splice(file, _header(link), *link.runs) for link in links)
    return Layout(given, said[0] if said else None, exact=False, remarks=remarks)


def says_length(file: BinaryIO) -> bool:
    """Tell whether a header frame states the frame count."""
    first = next(_frames(file), None)
    return first is not None and _header_fields(first[2], first[1]) is not None and _count(first[2]) is not None


def _wrong_count(link: _Link) -> str | None:
    """Describe a header frame that counts more frames than follow; `None` if it does not."""
    said = _count(link.header) if link.header else None
    frame = frame_at(link.first, 0)
    if said is None or frame is None or said <= link.frames:
        return None
    seconds = frame.samples / frame.sample_rate
    return f"its header states {said} frames ({said * seconds:.2f} s), but {link.frames} ({link.frames * seconds:.2f} s) exist"


def _frames(file: BinaryIO) -> Iterator[tuple[Span, Frame, bytes]]:
    """Yield the complete frames of a file, in order, without tags and other data.

    A frame followed by anything but a frame or tag is damaged, unless no frames follow at all. The next frame after it is dropped
    too, because it uses bits of earlier frames. Frames with other properties start another stream.
    """
    size, at = size_of(file), after_tags(file, 0)
    stream: tuple[int, int, int] | None = None
    last: tuple[Span, Frame, bytes] | None = None
    buffer, begin = b"", 0
    is_lost = False
    while at < size:
        if at < begin or at + 2 * _LARGEST_FRAME > begin + len(buffer):
            buffer, begin = read_at(file, at, _BLOCK), at
        where = at - begin
        frame = frame_at(buffer, where)
        whole = frame is not None and at + frame.size <= size
        if frame is not None and whole and (frame.stream == stream or _goes_on(buffer, where, frame, 2 if stream is None else 3)):
            found = Span(at, at + frame.size), frame, buffer[where : where + frame.size]
            if frame.stream != stream or _is_followed(buffer, where, frame):
                is_lost, last = is_lost and frame.stream == stream, None
                stream = frame.stream
                if not is_lost:
                    yield found
                at, is_lost = at + frame.size, False
                continue
            last = None if is_lost else found
            if _tag(buffer, where + frame.size):
                at += frame.size
                continue
        if tag := _tag(buffer, where):
            at += tag
            continue
        is_lost = stream is not None
        following = _SYNC.search(buffer, where + 1)
        at = begin + (following.start() if following else max(where + 1, len(buffer) - 3))
    if last is not None:
        yield last


def _is_followed(data: bytes, at: int, frame: Frame) -> bool:
    """Tell whether a frame is followed by the next frame or by the end of the data, possibly after tags."""
    end = at + frame.size
    following = frame_at(data, end)
    if following is not None:
        return following.stream == frame.stream
    while size := _tag(data, end):
        end += size
    return end > len(data) - 4


def _tag(data: bytes, at: int) -> int:
    """Return the size of a tag at an index; 0 if there is none."""
    if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        return _tag_size(data[at : at + 10])
    if data[at : at + 3] == b"TAG":
        return 128
    if data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
        size, _, flags = struct.unpack_from("<III", data, at + 12)
        return size + 32 if flags & 1 << 29 else 32
    return 0


def _header_fields(data: bytes, frame: Frame) -> dict[int, int] | None:
    """Return the offsets of the fields of a Xing or Info header by flag; key 0 is the end of the fields.

    Empty for a VBRI header; `None` if the frame has no header.
    """
    at = frame.side_info
    if frame.layer != 3 or data[at : at + 4] not in (b"Xing", b"Info"):
        return {} if frame.layer == 3 and data[36:40] == b"VBRI" else None
    flags, at = int.from_bytes(data[at + 4 : at + 8]), at + 8
    fields = {}
    for flag, size in _XING_FIELDS:
        if flags & flag:
            fields[flag], at = at, at + size
    return {**fields, 0: at}


def _count(data: bytes) -> int | None:
    """Return the frame count of a header frame; `None` if it has none."""
    frame = frame_at(data, 0)
    fields = _header_fields(data, frame) if frame else None
    if fields is None:
        return None
    at = fields.get(_COUNTED) if fields else 36 + 14
    return None if at is None else int.from_bytes(data[at : at + 4])


def _header(link: _Link) -> bytes:
    """Build a header frame with the frame count; empty for layers 1 and 2."""
    frame = frame_at(link.first, 0)
    assert frame is not None
    if frame.layer != 3:  # decoders of these layers ignore header frames; the bitrate is constant
        return b""
    sizes = sum(map(len, link.runs))
    fields = _header_fields(link.header, frame) if link.header else None
    if not link.header or not fields or _COUNTED not in fields:
        return _new_header(link.first, frame, link.frames, sizes)
    made, at = bytearray(link.header), fields[_COUNTED]
    gaps = fields[0] + _GAPS_AT
    is_cut = link.frames < int.from_bytes(made[at : at + 4]) and not link.passed_over
    if is_cut and len(made) >= gaps + 3:  # the padding that decoders would trim at the end is missing
        made[gaps + 1 : gaps + 3] = bytes([made[gaps + 1] & 0xF0, 0])
    return bytes(_counting(made, fields, link.frames, sizes))


def _counting(made: bytearray, fields: dict[int, int], frames: int, sizes: int) -> bytearray:
    """Store the counts of frames and bytes, the header frame included, in a header frame."""
    for flag, value in ((_COUNTED, frames), (_SIZED, sizes + len(made))):
        if flag in fields:
            made[fields[flag] : fields[flag] + 4] = value.to_bytes(4)
    return made


def _new_header(first: bytes, frame: Frame, frames: int, sizes: int) -> bytes:
    """Build a header frame and a frame of silence for a stream without a header.

    If libmpg123 knows the length, it trims `_DECODER_DELAY` samples plus the padding in the header. The silence is trimmed
    instead of audio.
    """
    silence = _silent(first, frame.side_info)
    made = _silent(first, frame.side_info + 16 + _LAME)
    at = frame.side_info
    made[at : at + 8] = b"Info" + (_COUNTED | _SIZED).to_bytes(4)
    made[at + 16 : at + 25] = b"LAME3.100"
    gaps = at + 16 + _GAPS_AT
    made[gaps : gaps + 3] = (frame.samples - _DECODER_DELAY << 12).to_bytes(3)
    return bytes(_counting(made, {_COUNTED: at + 8, _SIZED: at + 12}, frames + 1, sizes + len(silence)) + silence)


def _silent(first: bytes, least: int) -> bytearray:
    """Build a silent frame of at least `least` bytes, with the properties of the frame header `first`."""
    start = bytearray(first[:4])
    start[1] |= 1  # no checksum
    for bitrate in range(1, 15):
        start[2] = bitrate << 4 | start[2] & 0x0C
        found = frame_at(bytes(start), 0)
        if found is not None and found.size >= least:
            return start + bytes(found.size - 4)
    raise AssertionError("a frame of the highest bitrate is larger than any header")
