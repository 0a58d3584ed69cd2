from __future__ import annotations

import click

from ..installation import how_to_install
from ..plugins.registry import Registry
from ..specs import LoadOptions
from ..weights import at_hand
from .options import as_json, print_json


@click.command("list")
@as_json
def command(as_json: bool) -> None:
    """List the installed models."""
    entries = list(Registry())
    here = [at_hand(entry.spec.sources, LoadOptions()) is not None for entry in entries]
    if as_json:
        print_json(
            [
                {"plugin": entry.plugin, **entry.spec.model_dump(mode="json", include=FIELDS), "weights_at_hand": at}
                for entry, at in zip(entries, here, strict=True)
            ]
        )
        return
    if not entries:
        click.echo(f"No codec is installed. {how_to_install()}")
        return
    rows = [("NAME", "RATE", "CHANNELS", "KBPS", "TOKENS/S", "WEIGHTS", "DESCRIPTION")]
    for spec, at in zip((entry.spec for entry in entries), here, strict=True):
        rows.append(
            (
                spec.name,
                f"{spec.sample_rate} Hz",
                str(spec.channels),
                _range(spec.bandwidths),
                "-" if spec.is_continuous else f"{spec.token_rate:.0f}",
                "here" if at else "download",
                spec.description,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _range(bandwidths: tuple[float, ...]) -> str:
    """The only bandwidth, or the smallest and the largest; a dash for continuous codecs."""
    if not bandwidths:
        return "-"
    return " … ".join(f"{kbps:.2f}" for kbps in dict.fromkeys((bandwidths[0], bandwidths[-1])))


FIELDS = {
    "name",
    "family",
    "description",
    "aliases",
    "sample_rate",
    "channels",
    "hop_length",
    "strides",
    "codebook_size",
    "latent_channels",
    "codebook_choices",
    "default_codebooks",
    "license",
}
