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
    codec_name,
    format_options,
    loading,
    mono,
    normalize_db,
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
    required=True,
    type=AUDIO,
    help="the token file: .tokens, or a suffix of an installed plugin; - for standard output",
)
@bandwidth
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
    output: Path,
    bandwidth: float | None,
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
    with files.from_standard(source) as read, files.to_standard(output, container.SUFFIX) as written:
        registry = Registry()
        file_format = registry.format_for(written)
        files.check_writable(written)
        loading = LoadOptions.of(**options)
        codec = registry.provider(name, LoadOptions.of(**options, parts="encoder"))
        spec = codec.spec
        file_format.check_options(format_options)
        mono = mono or (file_format.streams == 1 == spec.channels)
        file_format.check(spec, files.channels_of(read, spec.channels, mono))
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
        "kbps": tokens.bits / max(tokens.seconds, 1e-9) / 1000,
    }
    if as_json:
        print_json(summary)
    else:
        say(f"{output}: {summary['tokens']} tokens for {tokens.seconds:.2f} s, {summary['kbps']:.2f} kbps", quiet)
