"""Recognition of the container of an audio file by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from . import chunks, flac, mpeg, ogg
from .layout import Layout
from .parts import read_at

HEAD = 64 << 10
"""Number of leading bytes that recognition reads."""
SUFFIXES = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav", ".wave"}
)
"""Usual suffixes of files that libsndfile reads. The format itself is recognized by content."""


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        name: Display name.
        extra: Extra of this package (and import name) needed to read it; `None` if libsndfile reads it.
        layout: Finds the audio in a file; `None` leaves that to libsndfile.
        scans: `layout` scans the whole file, so it is deferred until the audio is read.
        is_exact: The header states the exact length.
    """

    name: str
    extra: str | None = None
    layout: Callable[[BinaryIO], Layout] | None = None
    scans: bool = False
    is_exact: bool = False

    @property
    def is_available(self) -> bool:
        """True if the package that reads it is installed."""
        return self.extra is None or find_spec(self.extra) is not None


WAV = Container("WAV", layout=chunks.wav, is_exact=True)
W64 = Container("Wave64", layout=chunks.w64, is_exact=True)
AIFF = Container("AIFF", layout=chunks.aiff, is_exact=True)
CAF = Container("CAF", layout=chunks.caf, is_exact=True)
AU = Container("AU", layout=chunks.au, is_exact=True)
FLAC = Container("FLAC", layout=flac.layout, scans=True, is_exact=True)
OGG = Container("Ogg", layout=ogg.layout, scans=True)
MPEG = Container("MP3", layout=mpeg.layout, scans=True)
NIST, VOC, IFF = (
    Container("NIST SPHERE", layout=chunks.nist, is_exact=True),
    Container("Creative Voice", layout=chunks.voc),
    Container("IFF"),
)
OTHER_OGG, AAC, AVI = Container("another coding in Ogg", "av"), Container("AAC", "av"), Container("AVI", "av")

BEGINNINGS: tuple[tuple[bytes, int, bytes, Container], ...] = (
    (b"RIFF", 8, b"WAVE", WAV),
    (b"RIFX", 8, b"WAVE", WAV),
    (b"RF64", 8, b"WAVE", WAV),
    (b"BW64", 8, b"WAVE", WAV),
    (b"RIFF", 8, b"AVI ", AVI),
    (b"riff\x2e\x91\xcf\x11", 24, b"wave\xf3\xac\xd3\x11", W64),
    (b"FORM", 8, b"AIFF", AIFF),
    (b"FORM", 8, b"AIFC", AIFF),
    (b"FORM", 8, b"8SVX", IFF),
    (b"FORM", 8, b"16SV", IFF),
    (b"caff", 0, b"", CAF),
    (b".snd", 0, b"", AU),
    (b"dns.", 0, b"", AU),
    (b"fLaC", 0, b"", FLAC),
    (b"OggS", 28, b"\x01vorbis", OGG),
    (b"OggS", 28, b"OpusHead", OGG),
    (b"OggS", 0, b"", OTHER_OGG),
    (b"NIST_1A", 0, b"", NIST),
    (b"Creative Voice File", 0, b"", VOC),
    (b"", 4, b"ftyp", Container("MP4", "av")),
    (b"", 4, b"moov", Container("MP4", "av")),
    (b"", 4, b"mdat", Container("MP4", "av")),
    (b"", 4, b"wide", Container("MP4", "av")),
    (b"\x1aE\xdf\xa3", 0, b"", Container("Matroska or WebM", "av")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, b"", Container("WMA", "av")),
    (b"wvpk", 0, b"", Container("WavPack", "av")),
    (b"MAC ", 0, b"", Container("Monkey's Audio", "av")),
    (b"TTA1", 0, b"", Container("True Audio", "av")),
    (b"TTA2", 0, b"", Container("True Audio", "av")),
    (b"MPCK", 0, b"", Container("Musepack", "av")),
    (b"MP+", 0, b"", Container("Musepack", "av")),
    (b"#!AMR", 0, b"", Container("AMR", "av")),
    (b"FLV\x01", 0, b"", Container("FLV", "av")),
    (b".RMF", 0, b"", Container("RealMedia", "av")),
    (b"DSD ", 0, b"", Container("DSF", "av")),
    (b"FRM8", 0, b"", Container("DSDIFF", "av")),
    (b"ADIF", 0, b"", AAC),
    (b"\x00\x00\x01\xba", 0, b"", Container("MPEG-PS", "av")),
    (b"G", 188, b"G", Container("MPEG-TS", "av")),
)
"""Magic prefix, offset and bytes of a second match, and the container; the first match counts."""


def recognize(head: bytes) -> Container | None:
    """Recognize a container by the first bytes of a file, at most `HEAD`; `None` if unknown."""
    for begins, at, holds, container in BEGINNINGS:
        if head.startswith(begins) and head[at : at + len(holds)] == holds:
            return OTHER_OGG if container is OGG and ogg.is_multiplexed(head) else container
    if mpeg.begins(head):
        return MPEG
    return AAC if mpeg.is_adts(head) else None


def identify(file: BinaryIO) -> tuple[Container | None, int]:
    """Return the container of a seekable file, and its offset after any ID3 tags."""
    start = mpeg.after_tags(file, 0)
    found = recognize(read_at(file, start, HEAD))
    if found is None and start:  # anything unknown after an ID3 tag is taken for MP3
        return MPEG, start
    return found, start


def container_of(path: Path) -> Container | None:
    """Return the container of a file; `None` if unknown.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return identify(file)[0]


def is_audio(path: Path) -> bool:
    """Tell whether a file has a suffix of audio, or content that can be read here."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        found = container_of(path) if path.is_file() else None  # reading a pipe would block
    except OSError:
        return False
    return found is not None and found.is_available
