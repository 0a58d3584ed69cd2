from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnknownCodec
from ..plugins.registry import Entry, Registry
from ..specs import LoadOptions
from .options import as_json, print_json

if TYPE_CHECKING:
    from ..tokens.tokens import CodecTokens


@click.command("info")
@click.argument("name", metavar="NAME|FILE")
@as_json
def command(name: str, as_json: bool) -> None:
    """Show the details of one model, or of a file of tokens."""
    registry = Registry()
    if Path(name).is_file():
        show_tokens(registry.format_for(name).read(name), registry, as_json)
    else:
        show_model(registry.find(name), as_json)


def show_tokens(tokens: CodecTokens, registry: Registry, as_json: bool) -> None:
    """Print what a file of tokens says of itself."""
    lengths = [code.shape[1] for code in tokens.codes]
    if as_json:
        derived = {"seconds": tokens.seconds, "kbps": tokens.kbps, "frames": tokens.frames, "streams": tokens.streams}
        print_json({**tokens.fields, "segment": tokens.segment and tokens.segment.model_dump(), **derived, "tokens": lengths})
        return
    try:
        model = registry.find(tokens.codec).qualified_name
    except UnknownCodec as error:
        model = f"not installed: {error}"
    source = tokens.source
    show(
        {
            "codec": tokens.codec,
            "model": model,
            "audio": f"{tokens.seconds:.2f} s, {_channels(tokens.channels)}, {tokens.sample_rate} Hz",
            "original": source and f"{source.num_samples} samples at {source.sample_rate} Hz",
            "tokens": f"{tokens.num_codebooks} codebooks of {tokens.codebook_size}, with {' '.join(map(str, lengths))} tokens",
            "streams": tokens.streams if tokens.streams > 1 else "",
            "bandwidth": f"{tokens.kbps:.2f} kbps",
            "segments": tokens.segment and len(tokens.segment_frames),
            "loudness": tokens.loudness and ", ".join(f"{level:.1f} LUFS" for level in tokens.loudness),
            "extra": ", ".join(f"{name}={value}" for name, value in tokens.extra.items()),
            "weights": tokens.weights,
        }
    )


def show_model(entry: Entry, as_json: bool) -> None:
    """Print the details of one model."""
    from ..weights import at_hand

    spec = entry.spec
    here = at_hand(spec.sources, LoadOptions())
    if as_json:
        derived = {
            "plugin": entry.plugin,
            "bandwidth": spec.bandwidth,
            "bandwidths": spec.bandwidths,
            "token_rate": spec.token_rate,
            "frame_rate": spec.frame_rate,
            "weights_at_hand": here and str(here),
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
        "audio": f"{spec.sample_rate} Hz, {_channels(spec.channels)}",
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
        "on disk": here or "no; the first use downloads them",
        "license": spec.license,
        "notice": spec.license_notice,
        "homepage": spec.homepage,
    }
    show(rows)


def show(rows: dict[str, Any]) -> None:
    """Print the rows that have a value."""
    for key, value in rows.items():
        if value:
            click.echo(f"{key:<12} {value}")


def _channels(count: int) -> str:
    return "mono" if count == 1 else f"{count} channels"


def _strides(strides: tuple[int, ...]) -> str:
    if not strides:
        return ""
    return ", codebook strides " + (str(strides[0]) if len(set(strides)) == 1 else " ".join(map(str, strides)))
