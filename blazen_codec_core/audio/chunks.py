"""Containers with the audio size in the header: WAV, Wave64, AIFF, CAF, AU, NIST SPHERE, Creative Voice.

The declared size is compared with the file. Headers that were never completed (pipes) or overflowed 32 bits are repaired for the
decoder. Sizes follow EBU Tech 3306 (RF64), AIFF-C and Apple's CAF specification.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import mpeg
from .layout import AS_IT_IS, Layout
from .parts import Span, read_at, size_of, splice

ABSURD = 1 << 62
"""Least 64-bit size that is treated as unknown."""
LIMIT = 1 << 32
"""Number of values of a 32-bit size."""
_NEVER_WRITTEN = ((0x7FFF0000, 0x80010000), (0xFFFF0000, LIMIT))
"""Ranges of 32-bit placeholders that programs write to pipes instead of an unknown size."""
_MOST_CHUNKS = 10_000
_MOST_JUNK = 4096
"""Number of trailing bytes that are ignored."""
_FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", b"riff\x2e\x91\xcf\x11")
"""Magic bytes of other files, which are not chunk names."""
_NAME = re.compile(rb"[A-Za-z0-9_ -]{4}")
_GUID = 16
_MPEG_IN_WAV = (0x50, 0x55)
_EXTENSIBLE = 0xFFFE


@dataclass(frozen=True)
class _Data:
    """Position and declared size of the audio in a file.

    Attributes:
        start: Offset of the first byte.
        said: Declared size in bytes; `None` if unknown.
        align: Size in bytes of one sample of all channels; 1 if unknown.
    """

    start: int
    said: int | None
    align: int = 1

    def there(self, size: int) -> int:
        """Return the bytes of audio in a file of `size` bytes if audio extends to the end."""
        left = max(0, size - self.start)
        return left - left % self.align


def _was_never_written(size: int) -> bool:
    """Tell whether a 32-bit size is a placeholder that programs write to pipes."""
    return any(low <= size < high for low, high in _NEVER_WRITTEN)


def _lacking(said: int, there: int) -> str:
    return f"its header states {said} bytes of audio, but the file has {max(0, there)}"


def _checked(file: BinaryIO, data: _Data, put_right: Callable[[int], bytes]) -> Layout:
    """Compare the declared size with the file. Trailing data is cut, because libsndfile sometimes reads it as audio.

    Args:
        put_right: Returns a repaired header for a given number of bytes of audio.
    """
    size = size_of(file)
    left = size - data.start
    if data.said is not None and data.said <= left:
        links = None if data.said == left else (splice(file, Span(0, data.start + data.said)),)
        return Layout(links, _more(file, data.start + data.said, data.said, size))
    there = data.there(size)
    missing = None if data.said is None else _lacking(data.said, left)
    return Layout((splice(file, put_right(there), Span(data.start, data.start + there)),), missing)


def _more(file: BinaryIO, end: int, said: int, size: int) -> str | None:
    """Describe data after the audio that is neither a chunk nor small; `None` if there is none."""
    rest = size - end
    if rest <= _MOST_JUNK and rest <= said:
        return None
    heads = [read_at(file, at, _MOST_JUNK) for at in ((end, end + 1) if said % 2 else (end,))]
    if any(head.startswith(_FILES) for head in heads):
        return f"another file begins at byte {end}, where its audio ends"
    if rest <= 1 or not any(heads[0]) or any(map(_NAME.match, heads)):
        return None
    return f"its header states {said} bytes of audio, but {rest} more bytes follow that are not a chunk"


def _patched(head: bytes, *fields: tuple[int, str, int]) -> bytes:
    """Return bytes with numbers overwritten, given as (offset, `struct` format, value)."""
    made = bytearray(head)
    for at, form, value in fields:
        struct.pack_into(form, made, at, min(value, LIMIT - 1) if form[-1] == "I" else value)
    return bytes(made)


def _chunks(file: BinaryIO, at: int, order: str, end: int) -> list[tuple[bytes, int, int]]:
    """Return the (name, content offset, size) of consecutive RIFF-like chunks, as far as they are valid."""
    found: list[tuple[bytes, int, int]] = []
    while at + 8 <= end and len(found) < _MOST_CHUNKS:
        name, size = struct.unpack(f"{order}4sI", read_at(file, at, 8))
        if not all(32 <= byte < 127 for byte in name):
            break
        found.append((name, at + 8, size))
        at += 8 + size + (size & 1)
    return found


def wav(file: BinaryIO) -> Layout:
    """Find the audio of WAV, RF64 and BW64."""
    size = size_of(file)
    head = read_at(file, 0, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    chunks = _chunks(file, 12, order, size)
    form = next((span for span in chunks if span[0] == b"fmt "), None)
    found = next((span for span in chunks if span[0] == b"data"), None)
    if form is None or found is None:
        return AS_IT_IS
    _, start, said = found
    fmt = read_at(file, form[1], min(form[2], 64))
    tag, _, _, _, align, _ = struct.unpack_from(f"{order}HHIIHH", fmt.ljust(16, b"\0"))
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(fmt[24:26], "little")
    whole = max(1, align)
    if head[:4] in (b"RF64", b"BW64") and chunks[0][0] == b"ds64":
        data = _Data(start, struct.unpack("<Q", read_at(file, chunks[0][1] + 8, 8))[0] or None, whole)
        if data.said is not None and data.said >= ABSURD:
            data = _Data(start, None, whole)
    else:
        data = _Data(start, _meant(file, start, said, order, size), whole)

    def put_right(count: int) -> bytes:
        return _wav_head(order, read_at(file, form[1], form[2]), _others(file, chunks), count, max(1, align))

    if tag in _MPEG_IN_WAV:
        stop = start + min(size - start, data.said if data.said is not None else size - start)
        found_in = mpeg.layout(splice(file, Span(start, stop)))
        missing = None
        if data.said is not None and data.said > size - start:
            missing = _lacking(data.said, size - start)
        return found_in if missing is None else Layout(found_in.links, missing)
    is_wrapped = data.said is not None and said < LIMIT - 1 and said < data.said <= size - start
    if data.said is not None and is_wrapped:  # the size overflowed its field
        return Layout((splice(file, put_right(data.said), Span(start, start + data.said)),))
    if data.said is not None and data.said <= size - start and _more(file, start + data.said, data.said, size) is None:
        return AS_IT_IS
    return _checked(file, data, put_right)


def _meant(file: BinaryIO, start: int, said: int, order: str, size: int) -> int | None:
    """Resolve a 32-bit size: its value, possibly plus a multiple of 4 GiB; `None` for a placeholder."""
    left = size - start
    if _was_never_written(said) and said != left:
        return None
    if said > left or left - said <= 1:
        return said
    if not said:
        return 0 if _are_chunks(file, start, order, size) else None
    return said + (left - said) // LIMIT * LIMIT


def _are_chunks(file: BinaryIO, at: int, order: str, size: int) -> bool:
    """Tell whether valid chunks extend from `at` to the end of a file."""
    chunks = _chunks(file, at, order, size)
    if not chunks:
        return False
    _, start, length = chunks[-1]
    return 0 <= start + length + (length & 1) - size <= 1


def _others(file: BinaryIO, chunks: list[tuple[bytes, int, int]]) -> bytes:
    """Return the `fact` chunk, which some codings need."""
    return b"".join(read_at(file, at - 8, 8 + size) for name, at, size in chunks if name == b"fact" and size < 64)


def _wav_head(order: str, fmt: bytes, others: bytes, count: int, align: int) -> bytes:
    """Build a WAV header for `count` bytes of audio, or an RF64 header if they exceed WAV's limit."""
    body = b"WAVE"
    chunk = struct.pack(f"{order}4sI", b"fmt ", len(fmt)) + fmt + others
    total = 4 + len(chunk) + 8 + count
    if total < LIMIT:
        name = b"RIFX" if order == ">" else b"RIFF"
        return struct.pack(f"{order}4sI", name, total) + body + chunk + struct.pack(f"{order}4sI", b"data", count)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, total + 36, count, count // align, 0)
    full = struct.pack("<4sI", b"RF64", LIMIT - 1)
    return full + body + ds64 + chunk + struct.pack("<4sI", b"data", LIMIT - 1)


def w64(file: BinaryIO) -> Layout:
    """Find the audio of Sony's Wave64, whose chunks have a GUID and a 64-bit size that includes both."""
    at, align = 40, 1
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, at, 24)
        if len(head) < 24:
            break
        length = struct.unpack("<Q", head[_GUID:])[0]
        if head[:4] == b"fmt ":
            _, _, _, _, block = struct.unpack("<HHIIH", read_at(file, at + 24, 14).ljust(14, b"\0"))
            align = max(1, block)
        if head[:4] == b"data":
            start, here = at + 24, at
            known = 24 < length < ABSURD
            beginning = read_at(file, 0, start)

            def put_right(count: int, beginning: bytes = beginning, here: int = here) -> bytes:
                return _patched(beginning, (_GUID, "<Q", len(beginning) + count), (here + _GUID, "<Q", 24 + count))

            return _checked(file, _Data(start, length - 24 if known else None, align), put_right)
        if not 24 <= length < size_of(file):
            break
        at += length + (-length & 7)
    return AS_IT_IS


def aiff(file: BinaryIO) -> Layout:
    """Find the audio of AIFF and AIFF-C."""
    size = size_of(file)
    chunks = {name: (at, length) for name, at, length in reversed(_chunks(file, 12, ">", size))}
    if b"COMM" not in chunks or b"SSND" not in chunks:
        return AS_IT_IS
    comm, (sound, length) = chunks[b"COMM"][0], chunks[b"SSND"]
    channels, frames, bits = struct.unpack(">hIh", read_at(file, comm, 8).ljust(8, b"\0"))
    start = sound + 8
    width = max(1, channels * -(-bits // 8))
    unknown = length <= 8 or _was_never_written(length)
    plain = read_at(file, 8, 4) == b"AIFF" or read_at(file, comm + 18, 4) in (b"NONE", b"sowt", b"twos")
    said = None if unknown and size > start else max(0, length - 8)
    if length == 8 and size - start < width:
        said = 0
    beginning = read_at(file, 0, start)

    def put_right(count: int) -> bytes:
        samples = count // width if plain else frames
        return _patched(beginning, (4, ">I", start + count - 8), (comm + 2, ">I", samples), (sound - 4, ">I", count + 8))

    return _checked(file, _Data(start, said, width if plain else 1), put_right)


def caf(file: BinaryIO) -> Layout:
    """Find the audio of Apple's Core Audio Format, with 64-bit sizes; -1 means up to the end of the file."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, at, 12)
        if len(head) < 12:
            break
        length = struct.unpack(">q", head[4:])[0]
        if head[:4] == b"data":
            start, beginning = at + 16, read_at(file, 0, at + 16)

            def put_right(count: int, beginning: bytes = beginning, at: int = at) -> bytes:
                return _patched(beginning, (at + 4, ">q", count + 4))

            return _checked(file, _Data(start, length - 4 if length >= 4 else None), put_right)
        if not 0 <= length < size_of(file):
            break
        at += 12 + length
    return AS_IT_IS


def au(file: BinaryIO) -> Layout:
    """Find the audio of Sun's .au, in either byte order."""
    order = ">" if read_at(file, 0, 4) == b".snd" else "<"
    start, said = struct.unpack(f"{order}II", read_at(file, 4, 8).ljust(8, b"\0"))
    unknown = said == 0 or _was_never_written(said)
    beginning = read_at(file, 0, start)
    return _checked(file, _Data(start, None if unknown else said), lambda count: _patched(beginning, (8, f"{order}I", count)))


def nist(file: BinaryIO) -> Layout:
    """Find the audio of NIST SPHERE, which has a text header."""
    lines = read_at(file, 0, 1024).split(b"\n")
    fields = {words[0]: words[2] for line in lines if len(words := line.split(None, 2)) == 3}
    try:
        start = int(lines[1])
        count, channels, width = (int(fields[name]) for name in (b"sample_count", b"channel_count", b"sample_n_bytes"))
    except (IndexError, KeyError, ValueError):
        return AS_IT_IS
    if fields.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"alaw", b"mu-law"):
        return AS_IT_IS
    said, left = count * channels * width, size_of(file) - start
    if said <= left:
        return AS_IT_IS
    return Layout(missing=_lacking(said, left))


def voc(file: BinaryIO) -> Layout:
    """Find the audio of Creative Voice, whose blocks have a type and a 24-bit size that libsndfile does not check."""
    size = size_of(file)
    first = at = int.from_bytes(read_at(file, 20, 2), "little")
    while (head := read_at(file, at, 4)) and head[0]:
        if len(head) < 4 or at + 4 + int.from_bytes(head[1:], "little") > size:
            missing = (
                f"its last block states {int.from_bytes(head[1:], 'little')} bytes, but the file has {max(0, size - at - 4)}"
            )
            return Layout((splice(file, Span(0, at)),) if at > first else None, missing)
        at += 4 + int.from_bytes(head[1:], "little")
    return Layout((splice(file, Span(0, at)),)) if at < size else AS_IT_IS
