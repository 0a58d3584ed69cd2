"""Figures of a comparison as PNG files with axes, for papers and slides. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...evaluation import plots
from ..compare import Comparison
from . import png


def spectrograms(comparison: Comparison, path: Path) -> None:
    """Write the log-mel spectrograms of all versions, with the difference from the original beside each decoded one.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
        InvalidInput: The file cannot be written.
    """
    levels, loudest = comparison.levels, comparison.loudest
    rows = len(levels)
    figure, axes = plots.figure((14, 1.2 + 1.9 * rows), rows, 2, sharex=True, sharey=True)
    ticks = png.mel_ticks(comparison.sample_rate)
    extent = (0.0, comparison.seconds, 0.0, 1.0)
    images: list[Any] = [None, None]
    for row, (version, level) in enumerate(zip(comparison.versions, levels, strict=True)):
        values = (level - loudest, png.difference(levels[0], level, loudest) if row else None)
        for column, (scale, value) in enumerate(zip((png.LEVEL, png.DIFFERENCE), values, strict=True)):
            axis = axes[row][column]
            if value is None:
                axis.set_visible(False)
                continue
            images[column] = axis.imshow(
                value, origin="lower", aspect="auto", extent=extent, cmap=scale.colours, vmin=scale.low, vmax=scale.high
            )
            axis.set_title(f"{version.name}{' minus the original' if column else ''}", fontsize=10, loc="left")
        axes[row][0].set_yticks([height for _, height in ticks], [str(hertz) for hertz, _ in ticks])
        axes[row][0].set_ylabel("Hz (mel)")
    for column, (scale, image) in enumerate(zip((png.LEVEL, png.DIFFERENCE), images, strict=True)):
        axes[-1][column].set_xlabel("seconds")
        figure.colorbar(image, ax=list(axes[:, column]), label=scale.unit, shrink=0.6)
    figure.suptitle(f"{comparison.name}, {comparison.seconds:.2f} s")
    plots.save(figure, path)


def tokens(comparison: Comparison, path: Path) -> None:
    """Write the tokens of all versions that have some, with the entropy of each codebook; no file if none has.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
        InvalidInput: The file cannot be written.
    """
    versions = [version for version in comparison.versions if version.tokens]
    if not versions:
        return
    figure, axes = plots.figure((14, 0.8 + 2.4 * len(versions)), len(versions), 2, width_ratios=(6, 1), squeeze=False)
    for (matrix, usage), version in zip(axes, versions, strict=True):
        of_version = version.tokens
        assert of_version is not None
        values = png.token_matrix(of_version)
        extent = (0.0, comparison.seconds, values.shape[0] + 0.5, 0.5)
        matrix.imshow(values, aspect="auto", interpolation="nearest", extent=extent, cmap=png.tokens_scale(of_version).colours)
        matrix.set_title(f"{version.name}: {version.kbps:.2f} kbps", fontsize=10, loc="left")
        matrix.set(ylabel="codebook" if of_version.streams == 1 else "codebook, stream after stream", xlabel="seconds")
        numbers = range(1, len(version.codebooks) + 1)
        usage.barh(numbers, [book.entropy for book in version.codebooks], height=0.8)
        usage.set(xlim=(0, version.codebooks[0].bits), ylim=(len(version.codebooks) + 0.5, 0.5), xlabel="entropy, bits")
        for axis in (matrix.yaxis, usage.yaxis):
            axis.get_major_locator().set_params(integer=True)
    figure.suptitle(comparison.name)
    plots.save(figure, path)


def rate_quality(means: Sequence[dict[str, Any]], path: Path) -> None:
    """Write plots of each quality over the bitrate, with a point per system and a line through those of one codec.

    Args:
        means: Means of each system, from `serialize.means`.

    Raises:
        EngineNotAvailable: matplotlib is not installed.
        InvalidInput: The file cannot be written.
    """
    figure, axes = plots.figure((11, 8), 2, 2)
    for axis, (title, name, note) in zip(axes.reshape(-1), plots.PANELS, strict=True):
        families: dict[str, list[dict[str, Any]]] = {}
        for row in means:
            if row[name] is not None:
                families.setdefault(row["system"].partition("@")[0], []).append(row)
        for rows in families.values():
            rows.sort(key=lambda row: row["kbps"])
            axis.plot([row["kbps"] for row in rows], [row[name] for row in rows], "o-")
            for row in rows:
                axis.annotate(row["system"], (row["kbps"], row[name]), (6, 4), textcoords="offset points", fontsize=8)
        axis.set_title(f"{title} ({note})", fontsize=10)
        axis.set(xscale="log", xlabel="kbps")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.grid(alpha=0.3)
        axis.margins(x=0.2)
    plots.save(figure, path)
