"""The command group. A subcommand's module is imported when that subcommand runs, which keeps startup fast."""

from __future__ import annotations

import importlib
import sys
import warnings

import click

from .. import errors
from .interrupts import INTERRUPTED, Interrupts

COMMANDS = {
    "list": "List the installed models",
    "info": "Show the details of one model",
    "plugins": "List the plugins found, including broken ones",
    "encode": "Encode an audio file to tokens",
    "decode": "Decode tokens to an audio file",
    "tokenize": "Tokenize a dataset to shards of tokens",
    "detokenize": "Decode shards of tokens to audio files",
    "roundtrip": "Encode and decode an audio file, and measure the result",
    "evaluate": "Measure models on recordings",
    "compare": "Compare codecs on recordings in an HTML report",
    "serve": "Serve a page that compares codecs on uploaded audio",
    "verify": "Compare a model with its authors' package",
    "warm-up": "Compile what models need on this processor, for images",
    "new-plugin": "Create a codec plugin to start from",
}
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
    """Group whose subcommand `some-name` is `command` in the module `cli/some_name.py`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="blazen-codec-core")
def group() -> None:
    """Neural audio codecs.

    Exit codes: 0 success, 1 a check failed, 2 wrong usage or input, 3 unknown codec, 4 weights unavailable, 5 corrupt file,
    6 engine or device missing, 7 other errors, 130 interrupted, 143 terminated.
    """


def show_warning(message: Warning | str, *_: object) -> None:
    """Print a warning on stderr, without its line of code."""
    click.echo(f"notice: {message}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Unfinished files are removed however the command ends, except by SIGKILL.

    Args:
        arguments: Command-line arguments; `sys.argv` by default.
    """
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
        with warnings.catch_warnings():
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
