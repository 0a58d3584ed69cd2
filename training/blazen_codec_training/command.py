"""`blazen-codec finetune`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from blazen_codec_core.cli.options import quiet, say
from blazen_codec_core.cli.progress import bar

from . import settings as run_settings
from .settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
SHARE = click.FloatRange(0, 1, max_open=True)


def _from_file(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Take the defaults of the other options from a file of settings."""
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **run_settings.read(path)}


def option(*names: str, help: str, **attributes: Any) -> Callable[[F], F]:
    """Return an option whose default is that of the field of `Settings` with its name."""
    field = next((name for name in names if name in DEFAULTS), names[-1].lstrip("-").replace("-", "_"))
    attributes.setdefault("default", DEFAULTS[field])
    return click.option(*names, help=help, show_default=attributes["default"] is not None, **attributes)


@click.command("finetune")
@click.argument("model", metavar="NAME")
@click.option("--data", required=True, type=FOLDER, help="a folder of recordings")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="the folder of the run, new or begun"
)
@click.option(
    "--settings",
    is_eager=True,
    expose_value=False,
    callback=_from_file,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="defaults of these options, such as settings.json of another run",
)
@click.option(
    "--held-out",
    type=FOLDER,
    help="a folder of recordings to measure with; default: a share of --data",
)
@option("--held-out-share", type=SHARE, help="share of --data that is held out")
@option("--weights", metavar="WHERE", help="weights to start from: a file, a folder or a Hub id; default: the published ones")
@option("--train", type=click.Choice(["whole", "decoder"]), help="decoder: all tokens stay as they are")
@option("--freeze-codebooks", is_flag=True, help="leave the quantizer as it is")
@option("--steps", type=click.IntRange(1), help="steps in all")
@option("--batch", type=click.IntRange(1), help="cuts per step, over all processes and parts")
@option("--seconds", type=click.FloatRange(0.2, 60), help="length of a cut")
@option("--rate", type=click.FloatRange(0, min_open=True), help="peak learning rate")
@option("--dropout", type=click.FloatRange(0, 1), help="share of the cuts with fewer codebooks, for models with a choice")
@option("--adversarial", metavar="STEPS", type=click.IntRange(0), help="steps at the end with a discriminator")
@option("--ema", "average", type=SHARE, help="share that the moving average of weights keeps at a step")
@option("--accumulate", type=click.IntRange(1), help="parts of a batch, one after the other, to save memory")
@option("--processes", type=click.IntRange(1), help="processes that share each batch, on a GPU each, or on the CPU")
@option("--precision", type=click.Choice(["32", "bf16-mixed", "16-mixed"]), help="precision of the codec; 16-mixed needs a GPU")
@option("--device", help="auto, cpu, cuda, cuda:1 or mps")
@option("--seed", type=click.IntRange(0), help="seed of cuts, levels and noise")
@option("--checkpoint-every", metavar="STEPS", type=click.IntRange(1), help="steps between checkpoints")
@option("--samples-every", metavar="STEPS", type=click.IntRange(1), help="steps between samples to listen to")
@option("--evaluated", metavar="COUNT", type=click.IntRange(1), help="most held-out recordings in the report")
@quiet
def command(data: Path, held_out: Path | None, output: Path, quiet: bool, **options: Any) -> None:
    """Fine-tune a codec on recordings.

    The folder of the run receives model.safetensors, which `--weights FOLDER` of the other commands loads; samples to listen to;
    a log for TensorBoard; and a report that compares the codec before and after, on held-out recordings.

    An interrupted run resumes when started again with the same options.
    """
    from . import report
    from .finetune import MODEL, RECORDINGS, STATE, finetune, new_stop
    from .recordings import Recordings
    from .stopping import EXIT_CODES

    settings = Settings(data=str(data.resolve()), held_out=None if held_out is None else str(held_out.resolve()), **options)
    stop = new_stop(settings.processes)
    step = finetune(settings, output, stop=stop, remark=Remark(quiet), quiet=quiet)
    if step < settings.steps:
        say(f"stopped after {step} of {settings.steps} steps; the same command resumes the run", quiet)
        sys.exit(EXIT_CODES[stop.signal] if stop.signal else 1)
    recordings = Recordings.load(output / STATE / RECORDINGS)
    with bar("comparing", min(len(recordings.held_out), settings.evaluated), quiet) as advance:
        content = report.write(settings, recordings, output, output / MODEL, device=settings.device, done=lambda: advance(1))
    if not quiet:
        click.echo("\n".join(report.table(content["systems"])))
        click.echo(f"wrote {output / MODEL}, {output / 'report.html'}")


@dataclasses.dataclass(frozen=True)
class Remark:
    """Printer of remarks, which processes can be given."""

    quiet: bool

    def __call__(self, text: str) -> None:
        say(text, self.quiet)
