from __future__ import annotations

import click

from ..registry import Registry
from .options import as_json, print_json


@click.command("info")
@click.argument("name")
@as_json
def command(name: str, as_json: bool) -> None:
    """All that is known about one model."""
    entry = Registry().find(name)
    spec = entry.spec
    if as_json:
        derived = {
            "plugin": entry.plugin,
            "bandwidth": spec.bandwidth,
            "token_rate": spec.token_rate,
            "frame_rate": spec.frame_rate,
        }
        print_json({**spec.model_dump(mode="json"), **derived})
        return
    source = spec.weights
    can = spec.capabilities
    rows = {
        "name": entry.qualified_name,
        "also": ", ".join(other for other in entry.names if other not in (entry.qualified_name, spec.name)),
        "description": spec.description,
        "audio": f"{spec.sample_rate} Hz, {'mono' if spec.channels == 1 else f'{spec.channels} channels'}",
        "tokens": f"{spec.num_codebooks} codebooks of {spec.codebook_size}, {spec.token_rate:.1f} tokens/s",
        "bandwidth": f"{spec.bandwidth:.2f} kbps",
        "frames": f"{spec.frame_rate:.2f} Hz of {spec.hop_length} samples, codebook strides {' '.join(map(str, spec.strides))}",
        "runs on": f"{', '.join(can.devices)} in {', '.join(can.dtypes)}",
        "can": ", ".join(what for what, yes in (("stream", can.streams), ("batch", can.batches)) if yes),
        "engines": "native" + (", upstream" if spec.upstream else ""),
        "weights": f"{source.file} in {source.package or source.repo}" + (" (installed)" if source.package else ""),
        "licence": spec.licence,
        "homepage": spec.homepage or "",
    }
    for key, value in rows.items():
        if value:
            click.echo(f"{key:<12} {value}")
