from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..audio import check_format
from ..plugins.registry import Registry
from ..specs import LoadOptions
from ..tokens import container
from . import files
from .options import AUDIO, as_json, force, format_options, loading, print_json, quiet, say, strict_weights


@click.command("decode")
@click.argument("source", metavar="TOKENS", type=AUDIO)
@click.option(
    "-o",
    "--output",
    type=AUDIO,
    help="the audio file, format by suffix; - for WAV on standard output; default: TOKENS.wav in the current folder",
)
@force
@format_options
@loading
@strict_weights
@quiet
@as_json
def command(
    source: Path,
    output: Path | None,
    force: bool,
    format_options: dict[str, str],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Decode tokens to an audio file.

    TOKENS is a token file, or - for a .tokens file on standard input. The file names the model, and the weights if they are
    random:SEED. The audio has the sample rate and length of the original.
    """
    if as_json and output == files.STANDARD:
        raise click.UsageError("--json and the audio would both go to standard output")
    if output is None and source == files.STANDARD:
        raise click.UsageError("standard input has no name for the audio; name a file with -o, or - for standard output")
    output = output or Path(f"{source.stem}.wav")
    with files.from_standard(source, container.SUFFIX) as read, files.to_standard(output, ".wav") as written:
        registry = Registry()
        file_format = registry.format_for(read)
        files.check_writable(written, force)
        check_format(written.suffix)
        tokens = file_format.read(read, loading=LoadOptions.of(**options), **format_options)
        files.check_audio_fits(written, tokens)
        if options["weights"] is None and tokens.weights and tokens.weights.startswith("random:"):
            options["weights"] = tokens.weights
        codec = registry.provider(tokens.codec, LoadOptions.of(**options, parts="decoder"))
        files.decode_to_file(codec, tokens, written, quiet)
    if as_json:
        print_json({"output": str(output), "codec": tokens.codec, "seconds": tokens.seconds, "channels": tokens.channels})
    else:
        say(f"{output}: {tokens.seconds:.2f} s of audio from {tokens.codec}", quiet)
