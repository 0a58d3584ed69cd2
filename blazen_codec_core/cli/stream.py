"""Files through a codec, piece by piece, so that memory does not grow with their length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from .. import audio
from ..errors import NotYetImplemented
from ..provider import DynCodecProvider
from ..tokens import CodecTokens, Source
from .options import say

Advance = Callable[[float], None]
LONG = 20.0
"""Seconds of audio from which on a progress bar is shown."""


@contextmanager
def progress(what: str, seconds: float, quiet: bool) -> Iterator[Advance]:
    """A bar on stderr for long work on a terminal; calls of the value it gives add seconds done."""
    if quiet or seconds < LONG:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} s"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=seconds)
        yield lambda done: bar.advance(task, done)


@dataclasses.dataclass(frozen=True)
class Channels:
    """How the channels of a recording are made to suit a codec.

    Attributes:
        recorded: There are.
        mixed: They are averaged to one first.
        codec: The codec's; a single one is copied to as many.
    """

    recorded: int
    mixed: bool
    codec: int

    @property
    def count(self) -> int:
        """How many come out."""
        mono = self.mixed or self.recorded == 1
        return self.codec if mono else self.recorded

    @property
    def copied(self) -> bool:
        """Whether they have to be mixed down again when the tokens are decoded."""
        return self.count > 1 and (self.mixed or self.recorded == 1)

    def __call__(self, pcm: audio.Pcm) -> audio.Pcm:
        if self.mixed:
            pcm = pcm.mean(axis=0, keepdims=True)
        return np.repeat(pcm, self.count, axis=0) if self.copied else pcm

    def say(self, path: Path, quiet: bool) -> None:
        if self.mixed and self.recorded > 1:
            say(f"{path}: {self.recorded} channels mixed down to one", quiet)
        if self.copied:
            say(f"{path}: one channel copied to {self.count}", quiet)


def channels_of(path: Path, codec: int, mono: bool) -> int:
    """How many channels the tokens of a file will have, for a codec of so many."""
    with audio.AudioReader(path) as reader:
        return Channels(reader.channels, mono, codec).count


def encode_file(codec: DynCodecProvider, path: Path, bandwidth: float | None, quiet: bool, *, mono: bool = False) -> CodecTokens:
    """The tokens of an audio file, made to suit the codec if need be, which is said on stderr and kept in the tokens.

    Args:
        mono: Mix the channels down to one.
    """
    with audio.AudioReader(path) as reader:
        read = 0  # the header of a compressed file may only guess
        if reader.sample_rate != codec.sample_rate:
            say(f"{path}: resampled from {reader.sample_rate} to {codec.sample_rate} Hz", quiet)
        channels = Channels(reader.channels, mono, codec.channels)
        channels.say(path, quiet)
        resampler = audio.Resampler(reader.sample_rate, codec.sample_rate, channels.count)

        def pieces(advance: Advance) -> Iterator[audio.Pcm]:
            nonlocal read
            for block in reader.blocks():
                read += block.shape[1]
                yield resampler.push(channels(block))
                advance(block.shape[1] / reader.sample_rate)
            yield resampler.finish()

        with progress("encoding", reader.num_samples / reader.sample_rate, quiet) as advance:
            try:
                session = codec.encoder_session(channels.count, bandwidth=bandwidth)
            except NotYetImplemented:
                tokens = codec.encode(np.concatenate(list(pieces(advance)), axis=1), codec.sample_rate, bandwidth=bandwidth)
            else:
                tokens = CodecTokens.concat([*(session.push(piece) for piece in pieces(advance)), session.finish()])
    if reader.sample_rate == codec.sample_rate and not channels.copied:
        return tokens
    return dataclasses.replace(tokens, source=Source(reader.sample_rate, read, 1 if channels.copied else None))


def decode_pieces(codec: DynCodecProvider, tokens: CodecTokens, advance: Advance) -> Iterator[audio.Pcm]:
    """The audio that tokens stand for, at the codec's rate."""
    try:
        session = codec.decoder_session()
    except NotYetImplemented:
        yield codec.decode(tokens)
        return
    for part in tokens.parts(codec.spec.tile_frames):
        yield session.push(part)
        advance(part.seconds)
    yield session.finish()


def decode_to_file(codec: DynCodecProvider, tokens: CodecTokens, path: Path, quiet: bool) -> None:
    """Writes the audio that tokens stand for, with the rate, length and channels of the audio they were made from."""
    source = tokens.source or Source(tokens.sample_rate, tokens.num_samples)
    rate, wanted = source.sample_rate, source.num_samples
    mixing = Channels(tokens.channels, mixed=source.channels == 1 < tokens.channels, codec=1)
    resampler = audio.Resampler(tokens.sample_rate, rate, mixing.count)
    if rate != tokens.sample_rate:
        say(f"{path}: resampled from {tokens.sample_rate} back to {rate} Hz", quiet)
    mixing.say(path, quiet)
    with (
        audio.writing(path, rate, mixing.count) as out,
        progress("decoding", tokens.seconds, quiet) as advance,
    ):
        for piece in decode_pieces(codec, tokens, advance):
            out.write(resampler.push(mixing(piece))[:, : wanted - out.num_samples])
        out.write(resampler.finish()[:, : wanted - out.num_samples])
        out.write(np.zeros((mixing.count, wanted - out.num_samples), np.float32))


def check_writable(path: Path) -> None:
    """Fails before the work rather than after it."""
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory")
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is not a directory")
