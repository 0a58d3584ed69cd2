"""Pictures of audio. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineNotAvailable, InvalidInput
from ..files import replacing
from . import metrics
from .metrics import Signal

if TYPE_CHECKING:
    from .evaluate import Report


def check_available() -> None:
    """Raises `EngineNotAvailable` where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EngineNotAvailable("pictures need matplotlib: pip install 'blazen-codec-core[plot]'")


def figure(size: tuple[float, float], rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A figure of so many inches that no window shows, and its axes; options are those of matplotlib's `subplots`.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
    """
    check_available()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, **options)


def spectrograms(original: Signal, decoded: Signal, sample_rate: int, title: str, path: Path) -> None:
    """Writes the spectrograms of two signals of one channel, on one scale of decibels."""
    made, axes = figure((11, 7), 2, 1, sharex=True, sharey=True)
    levels = [20 * np.log10(metrics.spectrogram(signal) + 1e-5) for signal in (original, decoded)]
    top = float(max(level.max() for level in levels))
    extent = (0.0, original.shape[0] / sample_rate, 0.0, sample_rate / 2000)
    for axis, level, name in zip(axes, levels, ("original", "decoded"), strict=True):
        image = axis.imshow(level.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 90, vmax=top)
        axis.set_ylabel(f"{name}\nkHz")
    axes[1].set_xlabel("seconds")
    made.suptitle(title)
    made.colorbar(image, ax=axes, label="dB")
    save(made, path)


PANELS = (
    ("STOI", "stoi", "higher is better"),
    ("PESQ, wide band", "pesq", "higher is better"),
    ("log-mel distance", "log_mel_distance", "lower is better"),
    ("SI-SDR, dB", "si_sdr_db", "higher is better"),
)


def evaluations(reports: Sequence[Report], path: Path) -> None:
    """Writes a picture of how good systems are on recordings: bars for their means, a dot for each, and codebooks' entropy."""
    made, grid = figure((13, 7.5), 2, 3)
    axes = grid.flatten()
    names = [f"{report.system}\n{report.mean('kbps'):.2f} kbps" for report in reports]
    colours = [f"C{number % 10}" for number in range(len(reports))]
    for axis, (title, quality, note) in zip(axes, PANELS, strict=False):
        axis.bar(names, [report.mean(quality) for report in reports], color=colours, alpha=0.55)
        for place, report in enumerate(reports):
            scores = [getattr(result, quality) for result in report.results]
            axis.scatter([place] * len(scores), scores, color="black", s=9, zorder=3)
        axis.set_title(f"{title} ({note})", fontsize=10)
    speeds = [("encode", "encode_speed", -0.2), ("decode", "decode_speed", 0.2)]
    for label, quality, shift in speeds:
        places = np.arange(len(reports)) + shift
        axes[4].bar(places, [report.mean(quality) for report in reports], width=0.38, label=label)
    axes[4].set_xticks(range(len(reports)), names)
    axes[4].set_title("seconds of audio a second of work", fontsize=10)
    axes[4].legend()
    for report, colour in zip(reports, colours, strict=True):
        if report.codebooks:
            numbers = range(1, len(report.codebooks) + 1)
            shares = [book.entropy / book.bits for book in report.codebooks]
            axes[5].plot(numbers, shares, "o-", color=colour, label=report.system)
    axes[5].set(ylim=(0, 1.05), xlabel="codebook")
    axes[5].xaxis.get_major_locator().set_params(integer=True)
    axes[5].set_title("entropy of a codebook's indices over their bits", fontsize=10)
    axes[5].legend()
    for axis in axes[:5]:
        axis.tick_params(axis="x", labelsize=8)
    save(made, path)


def save(figure: Any, path: Path) -> None:
    """Writes a figure, whole or not at all; the suffix says the format.

    Raises:
        InvalidInput: There is no such format, or the file cannot be written.
    """
    with replacing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=120)
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from error
