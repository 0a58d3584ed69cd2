from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import click

from .. import api
from .options import as_json, force, print_json, quiet, say


@click.command("export")
@click.argument("name")
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder to write")
@click.option(
    "--what", type=click.Choice(["whole", "step", "both"]), help="whole signals, streams, or both  [default: all there is]"
)
@click.option("--parts", type=click.Choice(["encoder", "decoder"]), help="one half  [default: both]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="int8: the decoder alone",
)
@click.option("--tile-frames", type=int, metavar="N", help="frames of a step  [default: the fewest]")
@click.option("--check/--no-check", default=True, show_default=True, help="compare the graphs with the codec")
@click.option("--weights", metavar="WHERE", help="a file, a folder, a Hub id or random:SEED")
@click.option("--architecture", type=click.Choice(["from-weights"]), help="read the settings from the config beside --weights")
@click.option("--offline", is_flag=True, help="never use the network")
@force
@quiet
@as_json
def command(name: str, folder: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Export a model as ONNX graphs, for ONNX Runtime in any language or in a browser.

    The folder also gets a JSON that describes the graphs and their state, and a README with a driver. Unless --no-check is given,
    ONNX Runtime runs the graphs on signals of several lengths, whole and in chunks, and the codec's results are compared.
    """
    report = api.export(name, folder, say=partial(say, quiet=quiet), **options)
    if as_json:
        print_json({"folder": str(folder), "check": report and {**dataclasses.asdict(report), "agreement": report.agreement}})
    elif report and not quiet:
        same = report.tokens - report.differing_tokens
        click.echo(f"tokens   {same} of {report.tokens} agree")
        click.echo(f"audio    differs by at most {report.max_pcm_error:.2e}, from the same tokens")
        if options["dtype"] != "float32":
            click.echo(f"quality  blazen-codec evaluate {name} {folder} --audio RECORDING compares both")
