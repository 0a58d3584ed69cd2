"""Recordings through a codec in chunks, in memory that does not grow with their length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path

import numpy as np

from .audio import AudioReader, Resampler, Truncated, loudness, writing
from .backend import decode_chunks, encode_chunks
from .errors import InvalidInput, InvalidTokens, NotYetImplemented
from .provider import DynCodecProvider
from .tokens.tokens import CodecTokens, Source
from .validation import MAX_AMPLITUDE, Pcm

Advance = Callable[[float], object]
Progress = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Told what begins and how many seconds of audio it is, if known; what it gives is told the seconds that are done."""
MOST_PEAK = 2.0
"""Samples beyond this are remarked upon: 8 or 16 bits in a file of floating point, perhaps."""
SOURCE_SECONDS = 1.0
"""By how much a recording may have been longer or shorter than its tokens; resampling rounds by less than a millisecond."""


def silent(_what: str, _seconds: float | None) -> AbstractContextManager[Advance]:
    """Progress that nobody watches."""
    return nullcontext(lambda _: None)


@dataclasses.dataclass(frozen=True)
class ChannelMap:
    """Conversion of a recording's channels to those that a codec takes.

    Attributes:
        recorded: Channels of the recording.
        mixed: They are averaged to one first.
        codec: Channels of the codec; a single channel is copied to as many.
    """

    recorded: int
    mixed: bool
    codec: int

    @property
    def count(self) -> int:
        """Number of channels after the conversion."""
        mono = self.mixed or self.recorded == 1
        return self.codec if mono else self.recorded

    @property
    def copied(self) -> bool:
        """Tell whether they have to be mixed down again when the tokens are decoded."""
        return self.count > 1 and (self.mixed or self.recorded == 1)

    def __call__(self, pcm: Pcm) -> Pcm:
        if self.mixed:
            pcm = np.ascontiguousarray(pcm).mean(axis=0, keepdims=True)
        return np.repeat(pcm, self.count, axis=0) if self.copied else pcm

    @property
    def remarks(self) -> list[str]:
        """Changes to the channels, in words."""
        made = []
        if self.mixed and self.recorded > 1:
            made.append(f"{self.recorded} channels mixed down to one")
        if self.copied:
            made.append(f"one channel copied to {self.count}")
        return made


class Recording:
    """A recording made to suit a codec, as often as it is asked for.

    Args:
        opened: Opens it; it is closed after each reading.
        mono: Its channels are mixed to one.

    Attributes:
        seconds: Of audio, as the file's header says; `None` where it does not.

    Raises:
        InvalidInput: There is no such file, or it holds no audio.
        CorruptFile: It cannot be read.
    """

    def __init__(self, opened: Callable[[], AudioReader], codec: DynCodecProvider, mono: bool = False) -> None:
        self._opened, self._rate = opened, codec.sample_rate
        with opened() as reader:
            self.name = str(reader.path)
            self.sample_rate = reader.sample_rate
            self.seconds = None if reader.num_samples is None else reader.num_samples / reader.sample_rate
            self.channels = ChannelMap(reader.channels, mono, codec.channels)
        self.read = 0
        """Samples that there were."""
        self.found: list[str] = []
        """What a listener should know of what was read, in words, once all has been."""

    @classmethod
    def at(
        cls, path: str | PathLike[str], codec: DynCodecProvider, mono: bool = False, truncated: Truncated = "refuse"
    ) -> Recording:
        """One that is a file; `truncated` is what `AudioReader` takes."""
        return cls(lambda: AudioReader(path, truncated=truncated), codec, mono)

    @property
    def remarks(self) -> list[str]:
        """Changes to the recording, in words."""
        changed = self.sample_rate != self._rate
        resampled = [f"resampled from {self.sample_rate} to {self._rate} Hz"] if changed else []
        return [f"{self.name}: {remark}" for remark in (*resampled, *self.channels.remarks)]

    def pieces(self, advance: Advance = lambda _: None) -> Iterator[Pcm]:
        """`(channels, samples)` at the codec's rate.

        Raises:
            InvalidInput: Samples are no numbers, or far too large; the message says where.
            CorruptFile: The file is damaged, or shorter than it says.
        """
        self.read, peak = 0, 0.0
        resampler = Resampler(self.sample_rate, self._rate, self.channels.count)
        with self._opened() as reader:
            for block in reader.blocks():
                peak = max(peak, self._peak(block))
                self.read += block.shape[1]
                yield resampler.push(self.channels(block))
                advance(block.shape[1] / reader.sample_rate)
            loud = [f"it reaches {peak:g}, where 1 is full scale; were these integers?"] if peak > MOST_PEAK else []
            self.found = [*reader.remarks, *loud]
            yield resampler.finish()

    def _peak(self, block: Pcm) -> float:
        """The largest magnitude in the next block."""
        peak = max(-float(block.min()), float(block.max()))
        if not peak <= MAX_AMPLITUDE:  # nor NaN
            wrong = ~(np.abs(block) <= MAX_AMPLITUDE)
            channel, sample = min(np.argwhere(wrong), key=lambda place: place[1])
            value, at = block[channel, sample], (self.read + sample) / self.sample_rate
            what = f"a sample of {value:g}" if np.isfinite(value) else "NaN" if np.isnan(value) else "infinity"
            raise InvalidInput(f"{self.name} holds {what} at {at:.3f} s; audio is nominally -1 … 1. Was it never scaled?")
        return peak

    def whole(self) -> Pcm:
        """All of it at once."""
        return np.concatenate(list(self.pieces()), axis=1)

    @property
    def source(self) -> Source | None:
        """Source that decoding has to restore, once all has been read; `None` if nothing was changed."""
        if self.sample_rate == self._rate and not self.channels.copied:
            return None
        return Source(self.sample_rate, self.read, 1 if self.channels.copied else None)


def encode(
    codec: DynCodecProvider,
    recording: Recording,
    *,
    bandwidth: float | None = None,
    normalize_db: float | None = None,
    progress: Progress = silent,
) -> CodecTokens:
    """The tokens of a recording, which say what was done to it.

    Args:
        bandwidth: In kbps, where the codec has a choice.
        normalize_db: Bring it to so many LUFS first; the recording is read twice.
    """
    level = level_of(recording, codec, normalize_db, progress)
    with progress("encoding", recording.seconds) as advance:
        pieces = (piece * level.factors if level else piece for piece in recording.pieces(advance))
        tokens = encode_signal(codec, pieces, recording.channels.count, bandwidth)
    return dataclasses.replace(tokens, source=recording.source, loudness=level.loudness if level else None)


def level_of(
    recording: Recording, codec: DynCodecProvider, normalize_db: float | None, progress: Progress = silent
) -> loudness.Level | None:
    """Measure a recording, which is read once for that, and return its level; `None` if `normalize_db` is."""
    if normalize_db is None:
        return None
    target = loudness.check_target(normalize_db)
    with progress("measuring", recording.seconds) as advance:
        meter = loudness.measure(recording.pieces(advance), codec.sample_rate, recording.channels.count)
    return loudness.Level.to(target, meter)


def encode_signal(codec: DynCodecProvider, chunks: Iterable[Pcm], channels: int, bandwidth: float | None) -> CodecTokens:
    """Encode a signal that comes in chunks; at once, if the codec has no encoder sessions."""
    try:
        return encode_chunks(codec, chunks, channels, bandwidth=bandwidth)
    except NotYetImplemented:
        return codec.encode(np.concatenate(list(chunks), axis=1), codec.sample_rate, bandwidth=bandwidth)


def decode_signal(codec: DynCodecProvider, tokens: CodecTokens, advance: Advance = lambda _: None) -> Iterator[Pcm]:
    """Decode tokens to chunks at the codec's rate."""
    for chunk, seconds in decode_chunks(codec, tokens, codec.decode):
        yield chunk
        advance(seconds)


class OutputAligner:
    """Decoded audio, piece by piece, to the rate and the channels that a recording had, and in the end as long as it.

    Args:
        sample_rate: Of what is decoded, in hertz.
        recorded_rate: Of the recording.
        channels: How those that are decoded are made its own.
    """

    def __init__(self, sample_rate: int, recorded_rate: int, channels: ChannelMap) -> None:
        self._channels = channels
        self._resampler = Resampler(sample_rate, recorded_rate, channels.count)
        self._made = 0

    def push(self, pcm: Pcm, due: int) -> Pcm:
        """The next of it; what is ready. In all there are never more than `due` samples."""
        return self._at_most(self._resampler.push(self._channels(pcm)), due)

    def finish(self, due: int) -> Pcm:
        """The rest, so that in all there are `due` samples; silence, where there was less."""
        rest = self._at_most(self._resampler.finish(), due)
        return np.pad(rest, ((0, 0), (0, due - self._made)))

    def _at_most(self, pcm: Pcm, due: int) -> Pcm:
        pcm = pcm[:, : due - self._made]
        self._made += pcm.shape[1]
        return pcm


class SourceRestorer:
    """Conversion of decoded audio to the rate, length and channels of the audio that its tokens were made from.

    Raises:
        InvalidTokens: They say that they were made from audio of another length than theirs.
    """

    def __init__(self, tokens: CodecTokens) -> None:
        source = tokens.source or Source(tokens.sample_rate, tokens.num_samples)
        self.sample_rate, self.num_samples = source.sample_rate, source.num_samples
        seconds = self.num_samples / self.sample_rate
        if abs(seconds - tokens.seconds) > SOURCE_SECONDS:
            made = f"{self.num_samples} samples at {self.sample_rate} Hz"
            raise InvalidTokens(f"these tokens are {tokens.seconds:.2f} s, but say they were made from {made}")
        self.channels = ChannelMap(tokens.channels, mixed=source.channels == 1 < tokens.channels, codec=1)
        self._of_tokens = tokens.sample_rate

    @property
    def remarks(self) -> list[str]:
        """Changes to the decoded audio, in words."""
        changed = self.sample_rate != self._of_tokens
        resampled = [f"resampled from {self._of_tokens} back to {self.sample_rate} Hz"] if changed else []
        return [*resampled, *self.channels.remarks]

    def __call__(self, pieces: Iterator[Pcm]) -> Iterator[Pcm]:
        back = OutputAligner(self._of_tokens, self.sample_rate, self.channels)
        for piece in pieces:
            yield back.push(piece, self.num_samples)
        yield back.finish(self.num_samples)


def decode_to_file(
    codec: DynCodecProvider,
    tokens: CodecTokens,
    path: str | PathLike[str],
    *,
    progress: Progress = silent,
    remark: Callable[[str], object] = lambda _: None,
) -> None:
    """Writes the audio that tokens stand for, with the rate, length and channels of the audio they were made from.

    Args:
        remark: Told what is done to the audio.

    Raises:
        InvalidTokens: They say that they were made from audio of another length than theirs.
        InvalidInput: The file cannot be written.
    """
    for text in SourceRestorer(tokens).remarks:
        remark(f"{path}: {text}")
    factors: Pcm | None = None
    plain = dataclasses.replace(tokens, loudness=None)
    if tokens.loudness is not None:
        factors = loudness.changes(tokens.loudness, codec.decoded_loudness(tokens))
    with progress("decoding", tokens.seconds) as advance:
        pieces = decode_signal(codec, plain, advance)
        restore_to_file(tokens, (piece if factors is None else piece * factors for piece in pieces), path)


def restore_to_file(tokens: CodecTokens, pieces: Iterator[Pcm], path: str | PathLike[str]) -> None:
    """Writes what tokens decoded to as `decode_to_file` does; raises as it does."""
    restoring = SourceRestorer(tokens)
    sizes = (restoring.sample_rate, restoring.channels.count)
    with writing(Path(path), *sizes, num_samples=restoring.num_samples) as out:
        for piece in restoring(pieces):
            out.write(piece)
