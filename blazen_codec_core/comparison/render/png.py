"""Spectrograms, their differences and tokens as small PNG files: a pixel a value, colours from perceptual maps.

Needs matplotlib, the extra `plot`, and with it Pillow.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...evaluation import metrics
from ...tokens.tokens import CodecTokens
from ...validation import Pcm

COLUMNS = 1200
"""Of a spectrogram, at most; longer recordings have several frames in one."""
BANDS = 96
HOP_SECONDS = 0.01
RANGE_DB = 80.0
"""From the loudest of the original down to what counts as silence."""
DIFFERENCE_DB = 20.0
"""Beyond which, up or down, differences look alike."""
TOKEN_COLUMNS = 4000
"""Frames that are shown at most; of longer tokens only every so many."""
AT_A_TIME = 256
"""Columns that are transformed together."""
TICK_DISTANCE = 0.08
"""Of a spectrogram's height, that frequencies written beside it are apart at least."""
TICKS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)

Decibels = NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """Colour scale for values from `low` to `high`, over a colour map of matplotlib."""

    colours: str
    low: float
    high: float
    unit: str

    def png(self, values: NDArray[np.floating | np.integer]) -> bytes:
        """An image of `(rows, columns)`, the first row at the top."""
        from PIL import Image

        span = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        image = Image.fromarray(np.round(255 * np.clip(span, 0, 1)).astype(np.uint8), "L")
        image.putpalette(self._palette(256).tobytes())
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return file.getvalue()

    def swatches(self, count: int = 17) -> list[str]:
        """Colours from `low` to `high` as CSS writes them."""
        return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in self._palette(count)]

    def _palette(self, count: int) -> NDArray[np.uint8]:
        from matplotlib import colormaps

        return np.asarray(colormaps[self.colours](np.linspace(0, 1, count), bytes=True)[:, :3], np.uint8)


LEVEL = Scale("magma", -RANGE_DB, 0.0, "dB, 0 being the loudest of the original")
DIFFERENCE = Scale("berlin", -DIFFERENCE_DB, DIFFERENCE_DB, "dB more or less than the original")


def mel_levels(pcm: Pcm, sample_rate: int) -> Decibels:
    """The power of audio `(channels, samples)` in mel bands, in dB, `(bands, columns)`, the lowest band first.

    Channels are averaged, and neighbouring frames too where there are more than `COLUMNS`.
    """
    window = _window(sample_rate)
    hop = max(1, round(HOP_SECONDS * sample_rate))
    frames = pcm.shape[1] // hop + 1
    pooled = -(-frames // COLUMNS)
    filters = metrics.mel_filters(sample_rate, window, BANDS)
    columns = []
    for start in range(0, frames, pooled * AT_A_TIME):
        stop = min(frames, start + pooled * AT_A_TIME)
        power = np.mean([_power(channel, start, stop, window, hop) for channel in pcm], axis=0) @ filters
        edges = np.arange(0, stop - start, pooled)
        columns.append(np.add.reduceat(power, edges, axis=0) / np.diff([*edges, stop - start])[:, None])
    return np.asarray(10 * np.log10(np.maximum(np.concatenate(columns), 1e-12)).T, np.float32)


def _window(sample_rate: int) -> int:
    """About 50 ms, a power of two."""
    return int(2 ** round(math.log2(0.05 * sample_rate)))


def _power(signal: metrics.Signal, start: int, stop: int, window: int, hop: int) -> NDArray[np.float64]:
    """Power spectra of the frames `start` to `stop` of one channel, each centred on a multiple of `hop`."""
    first, last = start * hop - window // 2, (stop - 1) * hop + window // 2
    inside = signal[max(0, first) : last]
    padded = np.pad(inside, (max(0, -first), last - max(0, first) - len(inside)))
    return metrics.magnitudes(padded, window, hop) ** 2


def mel_ticks(sample_rate: int) -> list[tuple[int, float]]:
    """Frequencies in hertz and how far up a spectrogram they are, 0 to 1."""
    top = metrics.mel(sample_rate / 2)
    ticks: list[tuple[int, float]] = []
    for hertz in TICKS:
        up = float(metrics.mel(hertz) / top)
        if up - (ticks[-1][1] if ticks else 0) >= TICK_DISTANCE and up < 1 - TICK_DISTANCE / 2:
            ticks.append((hertz, up))
    return ticks


def level_image(levels: Decibels, loudest: float) -> bytes:
    """A spectrogram as PNG."""
    return LEVEL.png(levels[::-1] - loudest)


def difference(original: Decibels, decoded: Decibels, loudest: float) -> Decibels:
    """Decibels by which the decoded spectrogram is above the original; levels of silence count as equal."""
    floor = loudest - RANGE_DB
    return np.maximum(decoded, floor) - np.maximum(original, floor)


def difference_image(values: Decibels) -> bytes:
    """A difference of spectrograms as PNG."""
    return DIFFERENCE.png(values[::-1])


def token_matrix(tokens: CodecTokens) -> NDArray[np.int32]:
    """The tokens of a recording as they lie in time, `(streams x codebooks, frames)`; a token of a coarse codebook spans several
    columns. Of very long ones every so many frames are taken.
    """
    step = -(-tokens.frames // TOKEN_COLUMNS)
    at = np.arange(0, tokens.frames, step)
    rows = [codes[stream, at // stride] for stream in range(tokens.streams) for codes, stride in _books(tokens)]
    return np.stack(rows)


def _books(tokens: CodecTokens) -> list[tuple[NDArray[np.int32], int]]:
    return list(zip(tokens.codes, tokens.strides, strict=True))


def token_image(tokens: CodecTokens) -> bytes:
    """`token_matrix` as PNG, the first codebook at the top, coloured by the entry that was chosen."""
    return tokens_scale(tokens).png(token_matrix(tokens))


def tokens_scale(tokens: CodecTokens) -> Scale:
    return Scale("viridis", 0, tokens.codebook_size - 1, "entry")
