"""PNG images of spectrograms, their differences and tokens: one pixel per value, in perceptual colour maps.

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
"""Most columns of a spectrogram; longer recordings average several frames in one."""
BANDS = 96
HOP_SECONDS = 0.01
RANGE_DB = 80.0
"""Range in dB from the loudest level of the original down to silence."""
DIFFERENCE_DB = 20.0
"""Largest difference in dB, up or down, that the colour scale distinguishes."""
TOKEN_COLUMNS = 4000
"""Most columns of a token image; longer recordings are decimated."""
BLOCK_COLUMNS = 256
"""Columns that are transformed together, which bounds the memory."""
MIN_TICK_DISTANCE = 0.08
"""Least distance between ticks, as a fraction of a spectrogram's height."""
TICK_HERTZ = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)

Decibels = NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """Colour scale for values from `low` to `high`.

    Attributes:
        colours: Name of a colour map of matplotlib.
        low, high: Values of the first and the last colour; values beyond are clipped.
        unit: Unit of the values, for labels.
    """

    colours: str
    low: float
    high: float
    unit: str

    def png(self, values: NDArray[np.floating | np.integer]) -> bytes:
        """Encode values `(rows, columns)` as PNG, with the first row at the top."""
        from PIL import Image

        fraction = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        image = Image.fromarray(np.round(255 * np.clip(fraction, 0, 1)).astype(np.uint8), "L")
        image.putpalette(self._palette(256).tobytes())
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return file.getvalue()

    def swatches(self, count: int = 17) -> list[str]:
        """CSS colours of `count` values from `low` to `high`."""
        return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in self._palette(count)]

    def _palette(self, count: int) -> NDArray[np.uint8]:
        from matplotlib import colormaps

        return np.asarray(colormaps[self.colours](np.linspace(0, 1, count), bytes=True)[:, :3], np.uint8)


LEVEL = Scale("magma", -RANGE_DB, 0.0, "dB, 0 being the loudest of the original")
DIFFERENCE = Scale("berlin", -DIFFERENCE_DB, DIFFERENCE_DB, "dB more or less than the original")


def mel_levels(pcm: Pcm, sample_rate: int) -> Decibels:
    """Mel spectrogram in dB of audio `(channels, samples)`, as `(bands, columns)`, the lowest band first.

    The power is averaged over channels, and over neighbouring frames if there are more than `COLUMNS`.
    """
    window = _window(sample_rate)
    hop = max(1, round(HOP_SECONDS * sample_rate))
    frames = pcm.shape[1] // hop + 1
    frames_per_column = -(-frames // COLUMNS)
    filters = metrics.mel_filters(sample_rate, window, BANDS)
    block = frames_per_column * BLOCK_COLUMNS
    columns = []
    for start in range(0, frames, block):
        stop = min(frames, start + block)
        power = np.mean([_power(channel, start, stop, window, hop) for channel in pcm], axis=0) @ filters
        edges = np.arange(0, stop - start, frames_per_column)
        columns.append(np.add.reduceat(power, edges, axis=0) / np.diff([*edges, stop - start])[:, None])
    return np.asarray(10 * np.log10(np.maximum(np.concatenate(columns), 1e-12)).T, np.float32)


def _window(sample_rate: int) -> int:
    """Length of the analysis window in samples: about 50 ms, a power of two."""
    return int(2 ** round(math.log2(0.05 * sample_rate)))


def _power(signal: metrics.Signal, start: int, stop: int, window: int, hop: int) -> NDArray[np.float64]:
    """Power spectra of frames `start` to `stop` of one channel, each centred on a multiple of `hop`."""
    first, last = start * hop - window // 2, (stop - 1) * hop + window // 2
    inside = signal[max(0, first) : last]
    padded = np.pad(inside, (max(0, -first), last - max(0, first) - len(inside)))
    return metrics.magnitudes(padded, window, hop) ** 2


def mel_ticks(sample_rate: int) -> list[tuple[int, float]]:
    """Ticks of the frequency axis: hertz, and the height on a spectrogram, 0 to 1."""
    top = metrics.mel(sample_rate / 2)
    ticks: list[tuple[int, float]] = []
    for hertz in TICK_HERTZ:
        height = float(metrics.mel(hertz) / top)
        if height - (ticks[-1][1] if ticks else 0) >= MIN_TICK_DISTANCE and height < 1 - MIN_TICK_DISTANCE / 2:
            ticks.append((hertz, height))
    return ticks


def level_image(levels: Decibels, loudest: float) -> bytes:
    """PNG image of a spectrogram.

    Args:
        loudest: Level in dB of the top of the scale.
    """
    return LEVEL.png(levels[::-1] - loudest)


def difference(original: Decibels, decoded: Decibels, loudest: float) -> Decibels:
    """Decoded minus original spectrogram in dB; levels more than `RANGE_DB` below `loudest` count as equal."""
    floor = loudest - RANGE_DB
    return np.maximum(decoded, floor) - np.maximum(original, floor)


def difference_image(values: Decibels) -> bytes:
    """PNG image of a difference of spectrograms."""
    return DIFFERENCE.png(values[::-1])


def token_matrix(tokens: CodecTokens) -> NDArray[np.int32]:
    """Tokens of a recording aligned in time, `(streams x codebooks, frames)`.

    A token of a coarse codebook is repeated over the frames that it covers. More than `TOKEN_COLUMNS` frames are decimated.
    """
    step = -(-tokens.frames // TOKEN_COLUMNS)
    frames = np.arange(0, tokens.frames, step)
    codebooks = list(zip(tokens.codes, tokens.strides, strict=True))
    rows = [codes[stream, frames // stride] for stream in range(tokens.streams) for codes, stride in codebooks]
    return np.stack(rows)


def token_image(tokens: CodecTokens) -> bytes:
    """PNG image of `token_matrix`, the first codebook at the top, coloured by the index of the entry."""
    return tokens_scale(tokens).png(token_matrix(tokens))


def tokens_scale(tokens: CodecTokens) -> Scale:
    """Colour scale for the indices of a codebook."""
    return Scale("viridis", 0, tokens.codebook_size - 1, "entry")
