"""Containers of audio by their first bytes.

A stand-in for `blazen_codec_core.audio.containers`, which has the same `Container`, `recognize` and `HEAD`.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = 64 << 10
"""The most bytes that `recognize` looks at."""


@dataclass(frozen=True)
class Container:
    """A kind of audio file.

    Attributes:
        name: The field's word for it.
        extra: The optional package that reads it; `None` where libsndfile does.
    """

    name: str
    extra: str | None = None


MAGIC: tuple[tuple[int, bytes, Container], ...] = (
    (8, b"WAVE", Container("WAV")),
    (8, b"AIFF", Container("AIFF")),
    (8, b"AIFC", Container("AIFF")),
    (0, b"fLaC", Container("FLAC")),
    (0, b"OggS", Container("Ogg")),
    (0, b"ID3", Container("MP3")),
    (0, b"NIST_1A", Container("NIST SPHERE")),
    (0, b".snd", Container("AU")),
    (0, b"dns.", Container("AU")),
    (0, b"caff", Container("CAF")),
    (0, b"riff\x2e\x91\xcf\x11", Container("W64")),
    (0, b"Creative Voice File\x1a", Container("VOC")),
    (4, b"ftyp", Container("MP4", "av")),
    (0, b"\x1aE\xdf\xa3", Container("Matroska/WebM", "av")),
    (0, b"wvpk", Container("WavPack", "av")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Container("ASF", "av")),
)
"""Offset, bytes there, container."""


def recognize(head: bytes) -> Container | None:
    """Return the container that a file begins as, `None` if it is not one of audio."""
    for offset, magic, container in MAGIC:
        if head.startswith(magic, offset):
            return container
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        layer = head[1] >> 1 & 3
        if layer == 0:
            return Container("ADTS", "av") if head[1] & 0xF6 == 0xF0 else None
        if head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3 and head[1] >> 3 & 3 != 1:
            return Container("MP3")
    return None


def is_readable(container: Container) -> bool:
    """Whether `AudioReader` reads it here."""
    return container.extra is None
