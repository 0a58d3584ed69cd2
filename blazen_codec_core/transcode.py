"""Encoding and decoding of recordings in chunks, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path

import numpy as np

from .audio import AudioReader, Resampler, Truncated, loudness, writing
from .errors import InvalidInput, InvalidTokens, NotYetImplemented
from .provider import DynCodecProvider
from .streaming import decode_chunks, encode_chunks
from .tokens.tokens import CodecTokens, Source
from .validation import MAX_AMPLITUDE, Pcm

Advance = Callable[[float], object]
Progress = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Progress callback: takes a description and the total in seconds, if known; yields a function that adds seconds done."""
MOST_PEAK = 2.0
"""Peak above which a remark is made; possibly unscaled 8 or 16 bit samples in a floating-point file."""
SOURCE_SECONDS = 1.0
"""Tolerated difference in seconds between a recording and its tokens; resampling rounds by less than a millisecond."""


def silent(_what: str, _seconds: float | None) -> AbstractContextManager[Advance]:
    """Discard progress."""
    return nullcontext(lambda _: None)


@dataclasses.dataclass(frozen=True)
class ChannelMap:
    """Conversion of a recording's channels to those of a codec.

    Attributes:
        recorded: Channels of the recording.
        mixed: The channels are averaged to one first.
        codec: Channels of the codec; a single channel is copied to this number.
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
        """True if a channel is copied, so that decoding must mix the copies down."""
        return self.count > 1 and (self.mixed or self.recorded == 1)

    def __call__(self, pcm: Pcm) -> Pcm:
        if self.mixed:
            pcm = np.ascontiguousarray(pcm).mean(axis=0, keepdims=True)
        return np.repeat(pcm, self.count, axis=0) if self.copied else pcm

    @property
    def remarks(self) -> list[str]:
        """Descriptions of the changes to the channels."""
        made = []
        if self.mixed and self.recorded > 1:
            made.append(f"{self.recorded} channels mixed down to one")
        if self.copied:
            made.append(f"one channel copied to {self.count}")
        return made


class Recording:
    """A recording that is converted to a codec's rate and channels, and can be read repeatedly.

    Args:
        opened: Opens the audio; it is closed after each reading.
        codec: Codec that determines rate and channels.
        mono: Mix the channels down to one.

    Attributes:
        seconds: Duration in seconds according to the header; `None` if unknown.

    Raises:
        InvalidInput: The file does not exist, or has no audio.
        CorruptFile: The file cannot be read.
    """

    def __init__(self, opened: Callable[[], AudioReader], codec: DynCodecProvider, mono: bool = False) -> None:
        self._opened, self._rate = opened, codec.sample_rate
        with opened() as reader:
            self.name = str(reader.path)
            self.sample_rate = reader.sample_rate
            self.seconds = None if reader.num_samples is None else reader.num_samples / reader.sample_rate
            self.channels = ChannelMap(reader.channels, mono, codec.channels)
        self.read = 0
        """Number of samples read."""
        self.found: list[str] = []
        """Anomalies of the recording, complete once all of it was read."""

    @classmethod
    def at(
        cls, path: str | PathLike[str], codec: DynCodecProvider, mono: bool = False, truncated: Truncated = "refuse"
    ) -> Recording:
        """Make a recording from a file; `truncated` as for `AudioReader`."""
        return cls(lambda: AudioReader(path, truncated=truncated), codec, mono)

    @property
    def remarks(self) -> list[str]:
        """Descriptions of the changes to the recording."""
        changed = self.sample_rate != self._rate
        resampled = [f"resampled from {self.sample_rate} to {self._rate} Hz"] if changed else []
        return [f"{self.name}: {remark}" for remark in (*resampled, *self.channels.remarks)]

    def pieces(self, advance: Advance = lambda _: None) -> Iterator[Pcm]:
        """Yield chunks `(channels, samples)` at the codec's rate.

        Raises:
            InvalidInput: Samples are not finite or far too large; the message has the position.
            CorruptFile: The file is damaged, or shorter than its header states.
        """
        self.read, peak = 0, 0.0
        resampler = Resampler(self.sample_rate, self._rate, self.channels.count)
        with self._opened() as reader:
            for block in reader.blocks():
                peak = max(peak, self._peak(block))
                self.read += block.shape[1]
                yield resampler.push(self.channels(block))
                advance(block.shape[1] / reader.sample_rate)
            loud = [f"it reaches {peak:g}, where 1 is full scale; possibly unscaled integers"] if peak > MOST_PEAK else []
            self.found = [*reader.remarks, *loud]
            yield resampler.finish()

    def _peak(self, block: Pcm) -> float:
        """Return the largest magnitude in the next block; raise `InvalidInput` for invalid samples."""
        peak = max(-float(block.min()), float(block.max()))
        if not peak <= MAX_AMPLITUDE:  # nor NaN
            wrong = ~(np.abs(block) <= MAX_AMPLITUDE)
            channel, sample = min(np.argwhere(wrong), key=lambda place: place[1])
            value, at = block[channel, sample], (self.read + sample) / self.sample_rate
            what = f"a sample of {value:g}" if np.isfinite(value) else "NaN" if np.isnan(value) else "infinity"
            raise InvalidInput(
                f"{self.name} has {what} at {at:.3f} s; expected nominally -1 … 1. Did you forget to scale integer samples?"
            )
        return peak

    def whole(self) -> Pcm:
        """Read the whole recording."""
        return np.concatenate(list(self.pieces()), axis=1)

    @property
    def source(self) -> Source | None:
        """Original properties that decoding restores, known once all was read; `None` if nothing was changed."""
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
    """Encode a recording; the tokens record its conversion.

    Args:
        codec: Codec.
        recording: Recording.
        bandwidth: Bandwidth in kbps, for codecs that offer several.
        normalize_db: Target loudness in LUFS; the recording is read twice.
        progress: Progress callback.
    """
    level = level_of(recording, codec, normalize_db, progress)
    with progress("encoding", recording.seconds) as advance:
        pieces = (piece * level.factors if level else piece for piece in recording.pieces(advance))
        tokens = encode_signal(codec, pieces, recording.channels.count, bandwidth)
    return dataclasses.replace(tokens, source=recording.source, loudness=level.loudness if level else None)


def level_of(
    recording: Recording, codec: DynCodecProvider, normalize_db: float | None, progress: Progress = silent
) -> loudness.Level | None:
    """Read a recording to measure its level; `None` if `normalize_db` is `None`."""
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
        return codec.backend.encode(np.concatenate(list(chunks), axis=1), codec.sample_rate, bandwidth=bandwidth)


def decode_signal(codec: DynCodecProvider, tokens: CodecTokens, advance: Advance = lambda _: None) -> Iterator[Pcm]:
    """Decode tokens to chunks at the codec's rate."""
    for chunk, seconds in decode_chunks(codec, tokens, codec.decode):
        yield chunk
        advance(seconds)


class OutputAligner:
    """Streaming conversion of decoded audio to the rate, channels and length of the original.

    Args:
        sample_rate: Sample rate of the decoded audio in Hz.
        recorded_rate: Sample rate of the original in Hz.
        channels: Conversion of the decoded channels.
    """

    def __init__(self, sample_rate: int, recorded_rate: int, channels: ChannelMap) -> None:
        self._channels = channels
        self._resampler = Resampler(sample_rate, recorded_rate, channels.count)
        self._made = 0

    def push(self, pcm: Pcm, due: int) -> Pcm:
        """Add a chunk and return what is ready; the total never exceeds `due` samples."""
        return self._at_most(self._resampler.push(self._channels(pcm)), due)

    def finish(self, due: int) -> Pcm:
        """Return the rest, padded with silence to a total of `due` samples."""
        rest = self._at_most(self._resampler.finish(), due)
        return np.pad(rest, ((0, 0), (0, due - self._made)))

    def _at_most(self, pcm: Pcm, due: int) -> Pcm:
        pcm = pcm[:, : due - self._made]
        self._made += pcm.shape[1]
        return pcm


class SourceRestorer:
    """Conversion of decoded audio to the rate, length and channels of the original.

    Raises:
        InvalidTokens: The original's length in the tokens does not match theirs.
    """

    def __init__(self, tokens: CodecTokens) -> None:
        source = tokens.source or Source(tokens.sample_rate, tokens.num_samples)
        self.sample_rate, self.num_samples = source.sample_rate, source.num_samples
        seconds = self.num_samples / self.sample_rate
        if abs(seconds - tokens.seconds) > SOURCE_SECONDS:
            made = f"{self.num_samples} samples at {self.sample_rate} Hz"
            raise InvalidTokens(f"the tokens last {tokens.seconds:.2f} s, but their source has {made}")
        self.channels = ChannelMap(tokens.channels, mixed=source.channels == 1 < tokens.channels, codec=1)
        self._of_tokens = tokens.sample_rate

    @property
    def remarks(self) -> list[str]:
        """Descriptions of the changes to the decoded audio."""
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
    heard: Callable[[Pcm], object] = lambda _: None,
) -> None:
    """Decode tokens to a file, with the rate, length and channels of the original.

    Args:
        remark: Called with descriptions of changes to the audio.
        heard: Called with the chunks that are written, before the file's format rounds them.

    Raises:
        InvalidTokens: The original's length in the tokens does not match theirs.
        InvalidInput: The file cannot be written.
    """
    for text in SourceRestorer(tokens).remarks:
        remark(f"{path}: {text}")
    with progress("decoding", tokens.seconds) as advance:
        restore_to_file(tokens, _level_restored(codec, tokens, advance), path, heard)


def restored_pieces(codec: DynCodecProvider, tokens: CodecTokens) -> Iterator[Pcm]:
    """Decode tokens to chunks with the rate, length and channels of the original, with the errors of `decode_to_file`."""
    return SourceRestorer(tokens)(_level_restored(codec, tokens))


def _level_restored(codec: DynCodecProvider, tokens: CodecTokens, advance: Advance = lambda _: None) -> Iterator[Pcm]:
    """Decode tokens to chunks with the original's loudness."""
    factors: Pcm | None = None
    if tokens.loudness is not None:
        factors = loudness.changes(tokens.loudness, codec.decoded_loudness(tokens))
    pieces = decode_signal(codec, dataclasses.replace(tokens, loudness=None), advance)
    return (piece if factors is None else piece * factors for piece in pieces)


def restore_to_file(
    tokens: CodecTokens, pieces: Iterator[Pcm], path: str | PathLike[str], heard: Callable[[Pcm], object] = lambda _: None
) -> None:
    """Write decoded audio like `decode_to_file`, with the same errors."""
    restoring = SourceRestorer(tokens)
    sizes = (restoring.sample_rate, restoring.channels.count)
    with writing(Path(path), *sizes, num_samples=restoring.num_samples) as out:
        for piece in restoring(pieces):
            heard(piece)
            out.write(piece)
