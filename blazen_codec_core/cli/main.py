"""The command group. A subcommand's module is imported when that subcommand runs, which keeps startup fast."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click
import importlib_metadata

from .. import errors, installation
from .interrupts import INTERRUPTED, Interrupts

COMMANDS = {
    "list": "List the installed models",
    "info": "Show the details of one model",
    "plugins": "List the plugins found, including broken ones",
    "encode": "Encode an audio file to tokens",
    "decode": "Decode tokens to an audio file",
    "tokenize": "Tokenize a dataset to shards of tokens",
    "detokenize": "Decode shards of tokens to audio files",
    "export": "Export a model as ONNX graphs",
    "roundtrip": "Encode and decode an audio file, and measure the result",
    "evaluate": "Measure models on recordings",
    "compare": "Compare codecs on recordings in an HTML report",
    "serve": "Serve a page that compares codecs on uploaded audio",
    "finetune": "Fine-tune a model on recordings",
    "verify": "Compare a model with its authors' package",
    "warm-up": "Compile what models need on this processor, for images",
    "doctor": "Report what is installed and what runs here",
    "new-plugin": "Create a codec plugin to start from",
}
LOG = logging.getLogger("blazen_codec_core")
OF_ANOTHER = "Of another distribution"
ENTRY_POINTS = "blazen_codec.commands"
"""Group of entry points with the commands of other distributions."""
EXTRAS = {"finetune": "training"}
"""Extras of core that install commands of the project's other distributions."""
EXIT_CODES: tuple[tuple[type[errors.CodecError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.UnknownCodec, 3),
    (errors.AmbiguousCodec, 3),
    (errors.WeightsUnavailable, 4),
    (errors.CorruptFile, 5),
    (errors.InvalidTokens, 5),
    (errors.EngineNotAvailable, 6),
    (errors.DeviceUnavailable, 6),
    (errors.NotYetImplemented, 6),
    (errors.CodecError, 7),
)


class LazyGroup(click.Group):
    """Group whose subcommand `some-name` is `command` in the module `cli/some_name.py`, or an entry point elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in installed_commands() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS and cmd_name not in EXTRAS:
            command: click.Command = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__).command
            return command
        entry_point = installed_commands().get(cmd_name)
        if entry_point is not None:
            return load_command(entry_point)
        return missing_command(cmd_name, EXTRAS[cmd_name]) if cmd_name in EXTRAS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS.get(name, OF_ANOTHER)) for name in self.list_commands(ctx)])


def installed_commands() -> dict[str, importlib_metadata.EntryPoint]:
    """Return the entry points of commands of other distributions by name."""
    return {entry_point.name: entry_point for entry_point in importlib_metadata.entry_points(group=ENTRY_POINTS)}


def load_command(entry_point: importlib_metadata.EntryPoint) -> click.Command:
    """Import a command of another distribution.

    Raises:
        PluginError: It cannot be imported, or is not a command.
    """
    distribution = entry_point.dist.name if entry_point.dist else "unknown"
    try:
        command = entry_point.load()
    except Exception as error:
        reason = errors.reason(error)
        raise errors.PluginError(f"{entry_point.name} of {distribution} cannot be imported: {reason}") from error
    if not isinstance(command, click.Command):
        raise errors.PluginError(f"{entry_point.name} of {distribution} is {command!r}; it must be a click command")
    return command


def missing_command(name: str, extra: str) -> click.Command:
    """Return a command that says what to install, whatever its arguments are."""

    @click.command(name, context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        distribution = f"blazen-codec-{extra}"
        raise errors.EngineNotAvailable(f"{name} needs {distribution}: {installation.install_command(extra, distribution)}")

    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="blazen-codec-core")
def group() -> None:
    """Neural audio codecs.

    Exit codes: 0 success, 1 a check failed, 2 wrong usage or input, 3 unknown codec, 4 weights unavailable, 5 corrupt file,
    6 engine or device missing, 7 other errors, 130 interrupted, 143 terminated.
    """


def show_warning(message: Warning | str, *_: object) -> None:
    """Print a warning on stderr, without its line of code."""
    click.echo(f"notice: {message}", err=True)


class Remarks(logging.Handler):
    """Handler that prints records on stderr, as warnings are."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"notice: {record.getMessage()}", err=True)


@contextmanager
def remarks_shown() -> Iterator[None]:
    """Print what core logs at level INFO."""
    handler, before = Remarks(logging.INFO), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Unfinished files are removed however the command ends, except by SIGKILL.

    Args:
        arguments: Command-line arguments; `sys.argv` by default.
    """
    if arguments is None:
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look for them in all distributions
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have letters that the output's encoding lacks
            sys.stdout.reconfigure(errors="backslashreplace")
    interrupts = Interrupts(until_exit=arguments is None)
    try:
        with interrupts:
            code = _run(arguments)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    finally:
        interrupts.end_if_told()
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """Run a command, print its error, and return the exit code."""
    try:
        with warnings.catch_warnings(), remarks_shown():
            warnings.showwarning = show_warning  # type: ignore[assignment]
            code = group.main(arguments, prog_name="blazen-codec", standalone_mode=False)
    except errors.CodecError as error:
        click.echo(f"error: {error}", err=True)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
