from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..audio import Truncated
from ..plugins.registry import Registry
from ..specs import LoadOptions
from ..tokens import container
from . import files
from .options import (
    AUDIO,
    as_json,
    bandwidth,
    bandwidth_of,
    codec_name,
    force,
    format_options,
    loading,
    mono,
    normalize_db,
    num_codebooks,
    print_json,
    quiet,
    say,
    truncated,
)


@click.command("encode")
@click.argument("source", metavar="IN", type=AUDIO)
@codec_name
@click.option(
    "-o",
    "--output",
    type=AUDIO,
    help="the token file: .tokens, or a suffix of an installed plugin; - for standard output; default: IN.NAME.tokens in the "
    "current folder",
)
@force
@bandwidth
@num_codebooks
@mono
@normalize_db
@truncated
@format_options
@loading
@quiet
@as_json
def command(
    source: Path,
    name: str,
    output: Path | None,
    force: bool,
    bandwidth: float | None,
    num_codebooks: int | None,
    mono: bool,
    normalize_db: float | None,
    truncated: Truncated,
    format_options: dict[str, str],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Encode an audio file to tokens.

    IN is an audio file of any format and sample rate, or - for standard input. A mono codec encodes each channel separately, or
    their mix if the token format holds one stream only. For a codec with several channels, mono audio is duplicated.
    """
    if as_json and output == files.STANDARD:
        raise click.UsageError("--json and the tokens would both go to standard output")
    if output is None and source == files.STANDARD:
        raise click.UsageError("standard input has no name for the tokens; name a file with -o, or - for standard output")
    registry = Registry()
    output = output or Path(f"{source.stem}.{registry.find(name).spec.name}{container.SUFFIX}")
    with files.from_standard(source) as read, files.to_standard(output, container.SUFFIX) as written:
        file_format = registry.format_for(written)
        files.check_writable(written, force)
        files.check_recording(read, registry)
        loading = LoadOptions.of(**options)
        codec = registry.provider(name, LoadOptions.of(**options, parts="encoder"))
        spec = codec.spec
        file_format.check_options(format_options)
        mono = mono or (file_format.streams == 1 == spec.channels)
        file_format.check(spec, files.channels_of(read, spec.channels, mono))
        bandwidth = bandwidth_of(spec, bandwidth, num_codebooks)
        spec.codebooks_for(bandwidth)
        tokens = files.encode_file(
            codec, read, quiet, bandwidth=bandwidth, mono=mono, normalize_db=normalize_db, truncated=truncated
        )
        file_format.write(tokens, written, loading=loading, **format_options)
    summary = {
        "output": str(output),
        "codec": tokens.codec,
        "seconds": tokens.seconds,
        "streams": tokens.streams,
        "tokens": sum(code.size for code in tokens.codes),
        "kbps": tokens.kbps,
    }
    if as_json:
        print_json(summary)
    else:
        say(f"{output}: {summary['tokens']} tokens for {tokens.seconds:.2f} s, {tokens.kbps:.2f} kbps", quiet)
