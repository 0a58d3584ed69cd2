"""Pictures of audio. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .errors import EngineNotAvailable, InvalidInput
from .files import replacing
from .metrics import Signal


def check_available() -> None:
    """Raises `EngineNotAvailable` where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EngineNotAvailable("pictures need matplotlib: pip install 'blazen-codec-core[plot]'")


def spectrograms(original: Signal, decoded: Signal, sample_rate: int, title: str, path: Path) -> None:
    """Writes the spectrograms of two signals of one channel, on one scale of decibels."""
    check_available()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, 1, sharex=True, sharey=True)
    levels = [20 * np.log10(metrics.spectrogram(signal) + 1e-5) for signal in (original, decoded)]
    top = float(max(level.max() for level in levels))
    extent = (0.0, original.shape[0] / sample_rate, 0.0, sample_rate / 2000)
    for axis, level, name in zip(axes, levels, ("original", "decoded"), strict=True):
        image = axis.imshow(level.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 90, vmax=top)
        axis.set_ylabel(f"{name}\nkHz")
    axes[1].set_xlabel("seconds")
    figure.suptitle(title)
    figure.colorbar(image, ax=axes, label="dB")
    with replacing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=120)
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from error
