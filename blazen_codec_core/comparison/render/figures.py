"""A comparison as PNG files, with axes, for papers and slides. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...evaluation import plots
from ..compare import Comparison
from . import png


def spectrograms(compared: Comparison, path: Path) -> None:
    """Writes the log-mel spectrograms of all versions, those that came back with their difference to the original beside them."""
    levels, loudest = compared.levels, compared.loudest
    rows = len(levels)
    figure, axes = plots.figure((14, 1.2 + 1.9 * rows), rows, 2, sharex=True, sharey=True)
    ticks = png.mel_ticks(compared.sample_rate)
    extent = (0.0, compared.seconds, 0.0, 1.0)
    shown: list[Any] = [None, None]
    for row, (version, level) in enumerate(zip(compared.versions, levels, strict=True)):
        values = (level - loudest, png.difference(levels[0], level, loudest) if row else None)
        for column, (scale, value) in enumerate(zip((png.LEVEL, png.DIFFERENCE), values, strict=True)):
            axis = axes[row][column]
            if value is None:
                axis.set_visible(False)
                continue
            shown[column] = axis.imshow(
                value, origin="lower", aspect="auto", extent=extent, cmap=scale.colours, vmin=scale.low, vmax=scale.high
            )
            axis.set_title(f"{version.name}{' minus the original' if column else ''}", fontsize=10, loc="left")
        axes[row][0].set_yticks([up for _, up in ticks], [str(hertz) for hertz, _ in ticks])
        axes[row][0].set_ylabel("Hz (mel)")
    for column, (scale, image) in enumerate(zip((png.LEVEL, png.DIFFERENCE), shown, strict=True)):
        axes[-1][column].set_xlabel("seconds")
        figure.colorbar(image, ax=list(axes[:, column]), label=scale.unit, shrink=0.6)
    figure.suptitle(f"{compared.name}, {compared.seconds:.2f} s")
    plots.save(figure, path)


def tokens(compared: Comparison, path: Path) -> None:
    """Writes the tokens of all versions that have some, with the entropy of each codebook; nothing if none has."""
    versions = [version for version in compared.versions if version.tokens]
    if not versions:
        return
    figure, axes = plots.figure((14, 0.8 + 2.4 * len(versions)), len(versions), 2, width_ratios=(6, 1), squeeze=False)
    for (matrix, use), version in zip(axes, versions, strict=True):
        made = version.tokens
        assert made is not None
        values = png.token_matrix(made)
        extent = (0.0, compared.seconds, values.shape[0] + 0.5, 0.5)
        matrix.imshow(values, aspect="auto", interpolation="nearest", extent=extent, cmap=png.tokens_scale(made).colours)
        matrix.set_title(f"{version.name}: {version.kbps:.2f} kbps", fontsize=10, loc="left")
        matrix.set(ylabel="codebook" if made.streams == 1 else "codebook, stream after stream", xlabel="seconds")
        numbers = range(1, len(version.books) + 1)
        use.barh(numbers, [book.entropy for book in version.books], height=0.8)
        use.set(xlim=(0, version.books[0].bits), ylim=(len(version.books) + 0.5, 0.5), xlabel="entropy, bits")
        for axis in (matrix.yaxis, use.yaxis):
            axis.get_major_locator().set_params(integer=True)
    figure.suptitle(compared.name)
    plots.save(figure, path)


def rate_quality(means: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes each quality over the bitrate, a point a system, those of one codec joined; of `serialize.means`."""
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
