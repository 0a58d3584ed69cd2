"""Files through a codec, piece by piece, so that memory does not grow with their length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from .. import audio, loudness
from ..checks import Pcm
from ..errors import InvalidTokens, NotYetImplemented
from ..provider import DynCodecProvider
from ..tokens import CodecTokens, Source
from .options import say

Advance = Callable[[float], None]
LONG = 20.0
"""Seconds of audio from which on a progress bar is shown."""
SOURCE_SECONDS = 1.0
"""By how much a recording may have been longer or shorter than its tokens; resampling rounds by less than a millisecond."""


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

    def __call__(self, pcm: Pcm) -> Pcm:
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


class Recording:
    """An audio file, piece by piece and made to suit a codec, as often as it is asked for."""

    def __init__(self, path: Path, codec: DynCodecProvider, mono: bool) -> None:
        self.path, self._rate = path, codec.sample_rate
        with audio.AudioReader(path) as reader:
            self.sample_rate = reader.sample_rate
            self.seconds = reader.num_samples / reader.sample_rate
            self.channels = Channels(reader.channels, mono, codec.channels)
        self.read = 0
        """Samples that there were; the header of a compressed file may only guess."""

    def say(self, quiet: bool) -> None:
        if self.sample_rate != self._rate:
            say(f"{self.path}: resampled from {self.sample_rate} to {self._rate} Hz", quiet)
        self.channels.say(self.path, quiet)

    def pieces(self, advance: Advance) -> Iterator[Pcm]:
        self.read = 0
        resampler = audio.Resampler(self.sample_rate, self._rate, self.channels.count)
        with audio.AudioReader(self.path) as reader:
            for block in reader.blocks():
                self.read += block.shape[1]
                yield resampler.push(self.channels(block))
                advance(block.shape[1] / reader.sample_rate)
            yield resampler.finish()

    @property
    def source(self) -> Source | None:
        """What decoding has to undo, once all has been read; `None` if nothing."""
        if self.sample_rate == self._rate and not self.channels.copied:
            return None
        return Source(self.sample_rate, self.read, 1 if self.channels.copied else None)


def encode_file(
    codec: DynCodecProvider,
    path: Path,
    quiet: bool,
    *,
    bandwidth: float | None = None,
    mono: bool = False,
    normalize_db: float | None = None,
) -> CodecTokens:
    """The tokens of an audio file, made to suit the codec if need be, which is said on stderr and kept in the tokens.

    Args:
        mono: Mix the channels down to one.
        normalize_db: Bring it to so many LUFS first; the file is read twice.
    """
    recording = Recording(path, codec, mono)
    recording.say(quiet)
    level = None
    if normalize_db is not None:
        target = loudness.check_target(normalize_db)
        with progress("measuring", recording.seconds, quiet) as advance:
            meter = loudness.measure(recording.pieces(advance), codec.sample_rate, recording.channels.count)
        level = loudness.Level.to(target, meter)
    with progress("encoding", recording.seconds, quiet) as advance:
        pieces = (piece * level.factors if level else piece for piece in recording.pieces(advance))
        try:
            session = codec.encoder_session(recording.channels.count, bandwidth=bandwidth)
        except NotYetImplemented:
            tokens = codec.encode(np.concatenate(list(pieces), axis=1), codec.sample_rate, bandwidth=bandwidth)
        else:
            tokens = CodecTokens.concat([*(session.push(piece) for piece in pieces), session.finish()])
    return dataclasses.replace(tokens, source=recording.source, loudness=level.loudness if level else None)


def decode_pieces(codec: DynCodecProvider, tokens: CodecTokens, advance: Advance) -> Iterator[Pcm]:
    """The audio that tokens stand for, at the codec's rate."""
    try:
        session = codec.decoder_session()
    except NotYetImplemented:
        yield codec.decode(tokens)
        return
    for part in tokens.parts(codec.piece_frames):
        yield session.push(part)
        advance(part.seconds)
    yield session.finish()


def decode_to_file(codec: DynCodecProvider, tokens: CodecTokens, path: Path, quiet: bool) -> None:
    """Writes the audio that tokens stand for, with the rate, length and channels of the audio they were made from.

    Raises:
        InvalidTokens: They say that they were made from audio of another length than theirs.
    """
    source = tokens.source or Source(tokens.sample_rate, tokens.num_samples)
    rate, wanted = source.sample_rate, source.num_samples
    if abs(wanted / rate - tokens.seconds) > SOURCE_SECONDS:
        raise InvalidTokens(f"these tokens are {tokens.seconds:.2f} s, but say they were made from {wanted} samples at {rate} Hz")
    mixing = Channels(tokens.channels, mixed=source.channels == 1 < tokens.channels, codec=1)
    resampler = audio.Resampler(tokens.sample_rate, rate, mixing.count)
    if rate != tokens.sample_rate:
        say(f"{path}: resampled from {tokens.sample_rate} back to {rate} Hz", quiet)
    mixing.say(path, quiet)
    factors: Pcm | None = None
    if tokens.loudness is not None:
        factors = loudness.changes(tokens.loudness, codec.decoded_loudness(tokens))
        tokens = dataclasses.replace(tokens, loudness=None)
    with (
        audio.writing(path, rate, mixing.count) as out,
        progress("decoding", tokens.seconds, quiet) as advance,
    ):
        for piece in decode_pieces(codec, tokens, advance):
            levelled = piece if factors is None else piece * factors
            out.write(resampler.push(mixing(levelled))[:, : wanted - out.num_samples])
        out.write(resampler.finish()[:, : wanted - out.num_samples])
        out.write(np.zeros((mixing.count, wanted - out.num_samples), np.float32))


def check_writable(path: Path) -> None:
    """Fails before the work rather than after it."""
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory")
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is not a directory")
