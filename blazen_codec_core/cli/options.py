"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..specs import CodecSpec

F = TypeVar("F", bound=Callable[..., Any])

AUDIO = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
"""A file, or `-` in commands that accept it."""


def model(function: F) -> F:
    """Add the options that load a native codec; the command receives them as `**options` for `LoadOptions`."""
    for option in reversed(
        (
            click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps"),
            click.option(
                "--dtype", default="float32", show_default=True, help="tfloat32, bfloat16 and float16 change tokens; GPUs only"
            ),
            click.option("--weights", metavar="WHERE", help="a file, a folder, a Hub id or random:SEED"),
            click.option(
                "--architecture",
                type=click.Choice(["from-weights"]),
                help="from-weights: read the settings from the config beside --weights, instead of the published ones",
            ),
            click.option("--offline", is_flag=True, help="never use the network"),
            click.option("--trust-pickle", is_flag=True, help="read published pickles that no digest or commit pins"),
            click.option("--noise/--no-noise", default=True, help="let decoders with noise blocks add noise"),
            click.option("--noise-seed", type=click.IntRange(min=0), default=0, show_default=True, help="seed of that noise"),
        )
    ):
        function = option(function)
    return function


def loading(function: F) -> F:
    """Add the options that load a codec, including `--engine`."""
    engine = click.option("--engine", type=click.Choice(["native", "upstream", "onnx"]), default="native", show_default=True)
    return engine(model(function))


strict_weights = click.option("--strict-weights", is_flag=True, help="refuse tokens made with other weights, instead of warning")


def _judge(ctx: click.Context, parameter: click.Parameter, without_pesq: bool) -> Any:
    from ..evaluation import evaluate  # not needed to list codecs

    return evaluate.Scorer([name for name in evaluate.QUALITIES if name != "pesq" or not without_pesq])


judging = click.option("--no-pesq", "judge", is_flag=True, callback=_judge, help="leave out PESQ, a metric for speech")
"""Option that the command receives as `judge: evaluate.Scorer`."""
codec_name = click.option("-c", "--codec", "name", required=True, metavar="NAME", help="a model; see blazen-codec list")
bandwidth = click.option("-b", "--bandwidth", type=float, metavar="KBPS", help="bandwidth, for codecs that offer several")
num_codebooks = click.option("--num-codebooks", type=int, metavar="N", help="number of codebooks, instead of a bandwidth")
mono = click.option("--mono", is_flag=True, help="mix the channels down to one")
normalize_db = click.option(
    "--normalize-db",
    type=float,
    metavar="LUFS",
    help="normalize to this loudness before encoding; decoding restores the original",
)
truncated = click.option(
    "--truncated",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="for files shorter than their header says: refuse, or keep what is there",
)
force = click.option("-f", "--force", is_flag=True, help="replace files that exist")
quiet = click.option("-q", "--quiet", is_flag=True, help="print errors only")
as_json = click.option("--json", "as_json", is_flag=True, help="print JSON")


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse `NAME=VALUE` arguments into a dict."""
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter(f"{name!r} has no name or no value; expected NAME=VALUE", ctx, parameter)
    return {name: value for name, _, value in pairs}


format_options = click.option(
    "-O",
    "format_options",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="an option of the token file's format; repeatable",
)


def bandwidth_of(spec: CodecSpec, bandwidth: float | None, num_codebooks: int | None) -> float | None:
    """Return the bandwidth that a command was given in kbps or as a number of codebooks; `None` for the default.

    Raises:
        InvalidInput: The model does not support it, or both were given.
        NotYetImplemented: Numbers of codebooks were given for a continuous codec.
    """
    if num_codebooks is None:
        return bandwidth
    return spec.kbps(spec.codebooks_for(bandwidth, num_codebooks))


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def say(text: str, quiet: bool) -> None:
    """Print a remark on stderr."""
    if not quiet:
        click.echo(text, err=True)
