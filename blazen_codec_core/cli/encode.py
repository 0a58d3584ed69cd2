from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..registry import Registry
from ..specs import LoadOptions
from . import stream
from .options import AUDIO, as_json, bandwidth, codec_name, format_options, loading, mono, normalize_db, print_json, quiet, say


@click.command("encode")
@click.argument("source", metavar="IN", type=AUDIO)
@codec_name
@click.option("-o", "--output", required=True, type=AUDIO, help="the token file; .tokens, or a suffix that a plugin knows")
@bandwidth
@mono
@normalize_db
@format_options
@loading
@quiet
@as_json
def command(
    source: Path,
    name: str,
    output: Path,
    bandwidth: float | None,
    mono: bool,
    normalize_db: float | None,
    format_options: dict[str, str],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """An audio file to tokens.

    IN is anything that libsndfile reads, at any sample rate. A mono codec takes the channels one by one, unless the file's format
    holds one stream only: then they are mixed down. For a codec of several channels, a single one is copied.
    """
    registry = Registry()
    file_format = registry.format_for(output)
    stream.check_writable(output)
    loading = LoadOptions.of(**options)
    codec = registry.provider(name, loading)
    spec = codec.spec
    file_format.check_options(format_options)
    mono = mono or (file_format.streams == 1 == spec.channels)
    file_format.check(spec, stream.channels_of(source, spec.channels, mono))
    spec.codebooks_for(bandwidth)
    tokens = stream.encode_file(codec, source, quiet, bandwidth=bandwidth, mono=mono, normalize_db=normalize_db)
    file_format.write(tokens, output, loading=loading, **format_options)
    summary = {
        "output": str(output),
        "codec": tokens.codec,
        "seconds": tokens.seconds,
        "streams": tokens.streams,
        "tokens": sum(code.size for code in tokens.codes),
        "kbps": tokens.bits / max(tokens.seconds, 1e-9) / 1000,
    }
    if as_json:
        print_json(summary)
    else:
        say(f"{output}: {summary['tokens']} tokens for {tokens.seconds:.2f} s, {summary['kbps']:.2f} kbps", quiet)
