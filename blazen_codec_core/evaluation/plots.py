"""Plots of audio and evaluations. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput
from ..files import replacing
from ..installation import missing
from . import metrics
from .metrics import Signal

if TYPE_CHECKING:
    from .evaluate import Report


def check_available() -> None:
    """Raise `EngineNotAvailable` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise missing("pictures need matplotlib", "plot")


def figure(size: tuple[float, float], rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """Create a figure without a window, and its axes.

    Args:
        size: Width and height in inches.
        rows, columns: Number of axes.
        options: Options of matplotlib's `subplots`.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
    """
    check_available()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **options)


def spectrograms(original: Signal, decoded: Signal, sample_rate: int, title: str, path: Path) -> None:
    """Write the spectrograms of two signals of one channel `(samples,)`, on one scale of decibels.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
        InvalidInput: The file cannot be written.
    """
    fig, axes = figure((11, 7), 2, 1, sharex=True, sharey=True)
    levels = [20 * np.log10(metrics.spectrogram(signal) + 1e-5) for signal in (original, decoded)]
    top = float(max(level.max() for level in levels))
    extent = (0.0, original.shape[0] / sample_rate, 0.0, sample_rate / 2000)
    for axis, level, name in zip(axes, levels, ("original", "decoded"), strict=True):
        image = axis.imshow(level.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 90, vmax=top)
        axis.set_ylabel(f"{name}\nkHz")
    axes[1].set_xlabel("seconds")
    fig.suptitle(title)
    fig.colorbar(image, ax=axes, label="dB")
    save(fig, path)


PANELS = (
    ("STOI", "stoi", "higher is better"),
    ("PESQ, wide band", "pesq", "higher is better"),
    ("log-mel distance", "log_mel_distance", "lower is better"),
    ("SI-SDR, dB", "si_sdr_db", "higher is better"),
)
"""Title, field of `Result` and note of each plot of a quality."""


def evaluations(reports: Sequence[Report], path: Path) -> None:
    """Write plots of an evaluation: qualities, speeds and entropy of the codebooks of each system.

    A bar is the mean over the recordings, a dot one recording.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
        InvalidInput: The file cannot be written.
    """
    fig, grid = figure((13, 7.5), 2, 3)
    axes = grid.flatten()
    names = [f"{report.system}\n{report.mean('kbps'):.2f} kbps" for report in reports]
    colours = [f"C{number % 10}" for number in range(len(reports))]
    for axis, (title, quality, note) in zip(axes, PANELS, strict=False):
        axis.bar(names, [report.mean(quality) for report in reports], color=colours, alpha=0.55)
        for position, report in enumerate(reports):
            scores = [getattr(result, quality) for result in report.results]
            axis.scatter([position] * len(scores), scores, color="black", s=9, zorder=3)
        axis.set_title(f"{title} ({note})", fontsize=10)
    speeds = [("encode", "encode_speed", -0.2), ("decode", "decode_speed", 0.2)]
    for label, quality, shift in speeds:
        positions = np.arange(len(reports)) + shift
        axes[4].bar(positions, [report.mean(quality) for report in reports], width=0.38, label=label)
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
    save(fig, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure atomically, in the format of the file's suffix.

    Raises:
        InvalidInput: The format is unknown, or the file cannot be written.
    """
    with replacing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=120)
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from error
