from __future__ import annotations

import click

from ..plugins.registry import Registry
from .options import as_json, print_json


@click.command("info")
@click.argument("name")
@as_json
def command(name: str, as_json: bool) -> None:
    """Show the details of one model."""
    entry = Registry().find(name)
    spec = entry.spec
    if as_json:
        derived = {
            "plugin": entry.plugin,
            "bandwidth": spec.bandwidth,
            "bandwidths": spec.bandwidths,
            "token_rate": spec.token_rate,
            "frame_rate": spec.frame_rate,
        }
        print_json({**spec.model_dump(mode="json"), **derived})
        return
    can = spec.capabilities
    choices = [f"{kbps:.4g} kbps in {n}" for kbps, n in zip(spec.bandwidths, spec.usable_codebooks, strict=True)]
    tokens = f"{spec.used_codebooks} codebooks of {spec.codebook_size}, {spec.token_rate:.1f} tokens/s"
    tokens = "none; it is a continuous codec" if spec.is_continuous else tokens
    modes = {"batch": can.batches, "pools": can.pools}
    abilities = [*(f"{direction} streams" for direction in can.streams), *(mode for mode, claimed in modes.items() if claimed)]
    segment = spec.segment
    rows = {
        "name": entry.qualified_name,
        "also": ", ".join(other for other in entry.names if other not in (entry.qualified_name, spec.name)),
        "description": spec.description,
        "audio": f"{spec.sample_rate} Hz, {'mono' if spec.channels == 1 else f'{spec.channels} channels'}",
        "tokens": tokens,
        "latents": spec.latent_channels and f"{spec.latent_channels} channels at {spec.frame_rate:.2f} Hz",
        "bandwidth": "" if spec.is_continuous else f"{spec.bandwidth:.2f} kbps",
        "choices": ", ".join(choices) + " codebooks" if len(choices) > 1 else "",
        "frames": f"{spec.frame_rate:.2f} Hz of {spec.hop_length} samples{_strides(spec.strides)}",
        "segments": segment and f"{segment.length} samples every {segment.stride}{', scaled' if segment.normalized else ''}",
        "runs on": f"{', '.join(can.devices)} in {', '.join(can.dtypes)}",
        "can": "" if spec.is_continuous else ", ".join(abilities),
        "engines": "native" + (", upstream" if spec.upstream else ""),
        "weights": " or ".join(source.place + (" (installed)" if source.package else "") for source in spec.sources),
        "license": spec.license,
        "notice": spec.license_notice,
        "homepage": spec.homepage,
    }
    for key, value in rows.items():
        if value:
            click.echo(f"{key:<12} {value}")


def _strides(strides: tuple[int, ...]) -> str:
    if not strides:
        return ""
    return ", codebook strides " + (str(strides[0]) if len(set(strides)) == 1 else " ".join(map(str, strides)))
