"""Input and output files of commands: standard streams, progress, early checks."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from .. import transcode
from ..audio import AudioReader, Truncated, check_format, container_of
from ..errors import CodecError, InvalidInput, reason
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..tokens import container
from ..tokens.tokens import CodecTokens
from ..transcode import ChannelMap, Recording, SourceRestorer
from ..validation import Pcm
from .options import say
from .progress import progress


def channels_of(path: Path, codec: int, mono: bool) -> int:
    """Number of channels of a file's tokens, for a codec of `codec` channels."""
    with AudioReader(path) as reader:
        return ChannelMap(reader.channels, mono, codec).count


def encode_file(
    codec: DynCodecProvider,
    path: Path,
    quiet: bool,
    *,
    bandwidth: float | None = None,
    mono: bool = False,
    normalize_db: float | None = None,
    truncated: Truncated = "refuse",
) -> CodecTokens:
    """Encode an audio file, converted to the codec's rate and channels; print conversions on stderr, keep them in the tokens."""
    recording = Recording.at(path, codec, mono, truncated)
    for remark in recording.remarks:
        say(remark, quiet)
    watched = partial(progress, quiet=quiet)
    tokens = transcode.encode(codec, recording, bandwidth=bandwidth, normalize_db=normalize_db, progress=watched)
    for remark in recording.found:
        say(f"{recording.name}: {remark}", quiet)
    return tokens


def decode_to_file(
    codec: DynCodecProvider, tokens: CodecTokens, path: Path, quiet: bool, heard: Callable[[Pcm], object] = lambda _: None
) -> None:
    """Decode tokens to an audio file; print conversions on stderr. `heard` gets the audio that is written, in chunks."""
    watched = partial(progress, quiet=quiet)
    transcode.decode_to_file(codec, tokens, path, progress=watched, remark=lambda text: say(text, quiet), heard=heard)


STANDARD = Path("-")
"""Placeholder for standard input or output."""


@contextmanager
def from_standard(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a path to read: for `-` a temporary file with standard input, else the path itself."""
    if path != STANDARD:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="blazen-codec-", ignore_cleanup_errors=True) as folder:
        kept = Path(folder) / f"standard input{suffix}"
        with kept.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield kept
        except CodecError as error:  # the user does not know the temporary file
            error.args = tuple(
                part.replace(str(kept), "standard input") if isinstance(part, str) else part for part in error.args
            )
            raise


@contextmanager
def to_standard(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a path to write: for `-` a temporary file, copied to standard output once complete, else the path itself."""
    if path != STANDARD:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="blazen-codec-", ignore_cleanup_errors=True) as folder:
        made = Path(folder) / f"standard output{suffix}"
        yield made
        with made.open("rb") as file:
            _to_standard(file)


def _to_standard(file: BinaryIO) -> None:
    try:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, ValueError):  # otherwise the rest of the buffer is flushed, and fails, again at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        raise InvalidInput(f"standard output cannot be written: {error.strerror or reason(error)}") from error


def check_audio_fits(path: Path, tokens: CodecTokens) -> None:
    """Fail before the work starts if the file format cannot hold the audio of the tokens."""
    restoring = SourceRestorer(tokens)
    check_format(path.suffix, restoring.sample_rate, restoring.channels.count)


def check_writable(path: Path, force: bool) -> None:
    """Fail before the work starts if the path cannot be a file, or is one already and may not be replaced."""
    if path == STANDARD:
        raise click.UsageError("this is not written to standard output; name a file")
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory")
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is not a directory")
    if path.is_file() and not force:
        raise click.UsageError(f"{path} exists; --force replaces it")


def check_recording(path: Path, registry: Registry) -> None:
    """Fail before the work starts if a file to encode holds tokens."""
    suffixes = (container.SUFFIX, *(suffix for format in registry.plugins.formats for suffix in format.suffixes))
    if path.name.lower().endswith(suffixes) and path.is_file() and container_of(path) is None:
        raise InvalidInput(f"{path} is a file of tokens; blazen-codec decode makes audio of it")
