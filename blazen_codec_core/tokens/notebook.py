"""Tokens and audio in notebooks: a picture of codes, and a player. Nothing of Jupyter is needed."""

from __future__ import annotations

import base64
import html
import io
import struct
import wave
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..validation import Pcm
    from .tokens import CodecTokens

WIDEST = 800
"""Most columns of a picture; of longer tokens, evenly spaced frames are shown."""
ROW_PIXELS = 12
COLOURS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])
"""Colours from the first entry of a codebook to the last."""


class Player:
    """Audio that a notebook shows as a player.

    Attributes:
        pcm: Float32 `(channels, samples)`.
        sample_rate: Sample rate in Hz.
    """

    def __init__(self, pcm: Pcm, sample_rate: int) -> None:
        self.pcm, self.sample_rate = pcm, sample_rate

    def to_wav(self) -> bytes:
        """Return the audio as a WAV file of 16 bits."""
        written = io.BytesIO()
        with wave.open(written, "wb") as file:
            file.setnchannels(self.pcm.shape[0])
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes((self.pcm.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
        return written.getvalue()

    def _repr_html_(self) -> str:
        return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(self.to_wav()).decode()}"></audio>'

    def __repr__(self) -> str:
        channels, samples = self.pcm.shape
        return f"<Player of {samples / self.sample_rate:.2f} s, {channels} channel{'s' * (channels > 1)}, {self.sample_rate} Hz>"


def as_html(tokens: CodecTokens) -> str:
    """Return the line that tokens print, over a picture: a row for each codebook of each stream, a column for each frame."""
    title = html.escape(repr(tokens))
    if not tokens.frames:
        return title
    picture = image(tokens)
    height = ROW_PIXELS * picture.shape[0]
    source = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
    style = f"width:100%;max-width:{WIDEST}px;height:{height}px;image-rendering:pixelated"
    return f'<div>{title}<br><img alt="codes" style="{style}" src="{source}"></div>'


def image(tokens: CodecTokens) -> NDArray[np.uint8]:
    """Return pixels `(streams * codebooks, columns)`, from 0 for the first entry of a codebook to 255 for the last."""
    shown = np.linspace(0, tokens.frames - 1, min(tokens.frames, WIDEST)).round().astype(int)
    rows = np.stack([code[:, shown // stride] for code, stride in zip(tokens.codes, tokens.strides, strict=True)], axis=1)
    return (rows * (255 / max(1, tokens.codebook_size - 1))).round().astype(np.uint8).reshape(-1, shown.size)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of pixels `(rows, columns)` in `COLOURS`."""
    places = np.linspace(0, len(COLOURS) - 1, 256)
    palette = np.stack([np.interp(places, range(len(COLOURS)), channel) for channel in COLOURS.T], axis=1).astype(np.uint8)
    rows, columns = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line begins with its filter, which is none
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits with a palette
    parts = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
