"""Audio files as they are made, and as they are damaged: cut, changed, joined, with a header that is wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import soundfile

RATE = 16_000


def tone(seconds: float = 2.0, seed: int = 0, channels: int = 1, gain: float = 1.0) -> np.ndarray:
    """A tone in noise, `(samples, channels)`."""
    count = int(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal(count)
    mono = (0.3 * np.sin(np.arange(count) * 0.05) + 0.05 * noise).astype(np.float32)
    return np.tile(gain * mono[:, None], (1, channels))


def by_libsndfile(format: str, subtype: str | None = None, **options) -> Callable[..., bytes]:
    def made(**signal) -> bytes:
        file = io.BytesIO()
        with soundfile.SoundFile(file, "w", RATE, signal.get("channels", 1), subtype, format=format, **options) as out:
            out.write(tone(**signal))
        return file.getvalue()

    return made


def by_ffmpeg(format: str, codec: str, rate: int = RATE, **options: str) -> Callable[..., bytes]:
    """Such a file, made with PyAV.

    Args:
        options: Of the muxer.
    """

    def made(**signal) -> bytes:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format=format, options=options) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone(**signal).T.copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            stream.bit_rate = 64_000
            converter = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or 1024)
            for ready in (*converter.resample(frame), *converter.resample(None)):
                container.mux(stream.encode(ready))
            container.mux(stream.encode(None))
        return file.getvalue()

    return made


MADE: dict[str, Callable[..., bytes]] = {
    "wav": by_libsndfile("WAV"),
    "wav_float": by_libsndfile("WAV", "FLOAT"),
    "rf64": by_libsndfile("RF64"),
    "w64": by_libsndfile("W64"),
    "aiff": by_libsndfile("AIFF"),
    "caf": by_libsndfile("CAF", "PCM_16"),
    "au": by_libsndfile("AU"),
    "flac": by_libsndfile("FLAC"),
    "ogg": by_libsndfile("OGG", "VORBIS"),
    "opus": by_libsndfile("OGG", "OPUS"),
    "mp3": by_libsndfile("MP3"),
}
"""What libsndfile reads and writes, with the project's own suffixes."""
THROUGH_FFMPEG: dict[str, Callable[..., bytes]] = {
    "mp3_without_header": by_ffmpeg("mp3", "libmp3lame", write_xing="0"),
    "flac_of_ffmpeg": by_ffmpeg("flac", "flac"),
    "m4a": by_ffmpeg("ipod", "aac"),
    "mp4": by_ffmpeg("mp4", "aac"),
    "aac": by_ffmpeg("adts", "aac"),
    "webm": by_ffmpeg("webm", "libopus", rate=48_000),
    "wma": by_ffmpeg("asf", "wmav2"),
    "mka": by_ffmpeg("matroska", "flac"),
    "wv": by_ffmpeg("wv", "wavpack"),
    "flac_in_ogg": by_ffmpeg("ogg", "flac"),
}


def damaged(name: str, data: bytes, other: bytes, seed: int) -> bytes:
    """A file cut, changed in some bytes, with bytes put in, or joined with another, by chance."""
    chance = Random(f"{name} {seed}")
    kind = chance.choice(["cut", "changed", "changed", "header", "joined", "put in"])
    made = bytearray(data)
    if kind == "cut":
        return bytes(made[: chance.randrange(1, len(made))])
    if kind in ("changed", "header"):
        for _ in range(chance.choice([1, 1, 3, 20])):
            made[chance.randrange(len(made) if kind == "changed" else 200)] = chance.choice([0, 127, 255, chance.randrange(256)])
        return bytes(made)
    if kind == "joined":
        return bytes(made[: chance.choice([len(made), chance.randrange(1, len(made))])]) + chance.choice([data, other])
    at = chance.randrange(len(made))
    return bytes(made[:at]) + chance.randbytes(chance.choice([1, 7, 300])) + bytes(made[at:])


def with_sizes(wav: bytes, riff: int, data: int) -> bytes:
    """A WAV whose header says other sizes, in bytes, of the file and of its audio."""
    made, at = bytearray(wav), wav.find(b"data")
    struct.pack_into("<I", made, 4, riff)
    struct.pack_into("<I", made, at + 4, data)
    return bytes(made)


def of_unknown_length(flac: bytes) -> bytes:
    """FLAC as it is written to a pipe."""
    made = bytearray(flac)
    made[21] &= 0xF0
    made[22:26] = bytes(4)
    return bytes(made)


def ogg_pages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        lacing = data[at + 26]
        size = 27 + lacing + sum(data[at + 27 : at + 27 + lacing])
        yield data[at : at + size]
        at += size


def with_serial(ogg: bytes, serial: int, later: int = 0) -> bytes:
    """The same stream with another serial number, as one that was joined so many samples later."""
    made = b""
    for number, page in enumerate(ogg_pages(ogg)):
        position = struct.unpack_from("<q", page, 6)[0] + (later if number > 1 else 0)
        changed = page[:6] + struct.pack("<q", position) + struct.pack("<I", serial) + page[18:22] + bytes(4) + page[26:]
        made += changed[:22] + struct.pack("<I", _ogg_checksum(changed)) + changed[26:]
    return made


def _ogg_checksum(data: bytes) -> int:
    """Bit by bit, as RFC 3533 has it."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


def id3_tag(size: int) -> bytes:
    """A tag with a picture of so many bytes, among which some look like frames."""
    picture = b"\xff\xfb\x90\x00" * (size // 4)
    body = b"APIC" + struct.pack(">I", len(picture)) + bytes(2) + picture
    length = len(body)
    return b"ID3\x03\0\0" + bytes(length >> shift & 127 for shift in (21, 14, 7, 0)) + body


def seconds_by_ffmpeg(data: bytes, format: str | None = None) -> float:
    """How much audio FFmpeg finds; it goes on where it can.

    Args:
        format: That it is told; it looks itself, if `None`.
    """
    import av

    found = 0.0
    try:
        with av.open(io.BytesIO(data), format=format, metadata_errors="replace") as container:
            for packet in container.demux(container.streams.audio[0]):
                try:
                    found += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError, ValueError, OSError):
        pass
    return found
