"""Codecs that work in segments: each is encoded and decoded as a signal of its own, so they can run as a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import CodecBackend, DecoderSession, EncoderSession
from ..checks import check_piece
from ..errors import InvalidInput
from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import StreamSetup
from ..specs import CodecSpec, Segment
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .sessions import DecoderSessionBase, SessionBase, audio, signals
from .transfers import codes_to_host

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedSegment:
    """The tokens of one segment: codes `(streams, frames)` a codebook, and scales `(streams,)` where there are any."""

    codes: list[NDArray[np.int32]]
    scales: NDArray[np.float32] | None

    @property
    def streams(self) -> int:
        return int(self.codes[0].shape[0])


@dataclass(frozen=True)
class SegmentCoder:
    """Runs segments through a network, those of equal length side by side.

    Attributes:
        setup: Makes the setup for so many rows.
        rows: How many may run as a batch.
        batches: How many batches may run at once, which only meet in layers that gain from it.
    """

    spec: CodecSpec
    network: CodecNetwork
    setup: Callable[[int], StreamSetup]
    rows: int
    batches: int

    @property
    def segment(self) -> Segment:
        assert self.spec.segment is not None
        return self.spec.segment

    @property
    def most(self) -> int:
        return self.rows * self.batches

    def together(self, streams: int) -> int:
        """Number of segments of `streams` streams each that may run side by side."""
        return max(1, self.most // streams)

    def encode(self, pieces: Sequence[Pcm], books: int) -> list[EncodedSegment]:
        """Segments `(channels, samples)` of any lengths to the tokens of each."""
        return _in_groups(pieces, self.most, lambda piece: piece.shape[1], lambda group: self._encode(group, books))

    def decode(self, pieces: Sequence[EncodedSegment]) -> list[Pcm]:
        """The tokens of segments to `(channels, frames * hop_length)` of each."""
        return _in_groups(pieces, self.most, lambda piece: piece.codes[0].shape[1], self._decode)

    def _encode(self, pieces: Sequence[Pcm], books: int) -> list[EncodedSegment]:
        batches = list(grouped(pieces, self.rows))
        inputs = [self._input(batch) for batch in batches]
        whole = pieces[0].shape[1] == self.segment.length
        states = [self.network.encoder_state(self._setup(len(x), whole), books) for x, _ in inputs]
        made = self.network.encode_each([x for x, _ in inputs], states, last=True)
        each = zip(batches, inputs, made, strict=True)
        return [piece for batch, (_, scales), indices in each for piece in self._coded(batch, scales, indices)]

    def _setup(self, rows: int, whole: bool) -> StreamSetup:
        """Setup for whole segments, or for those at the end of a signal, which have any length."""
        return replace(self.setup(rows), any_length=not whole)

    def _input(self, pieces: Sequence[Pcm]) -> tuple[Tensor, NDArray[np.float32] | None]:
        """Segments as a batch, and their scales where there are any."""
        rows = sum(len(piece) for piece in pieces) // self.spec.channels
        setup = self.setup(rows)
        x = signals(pieces, pieces[0].shape[1], self.spec.channels, replace(setup, dtype=torch.float32))
        if not self.segment.normalized:
            return x.to(setup.dtype), None
        wide = x.double() if x.device.type == "cuda" else x  # whose sums depend on how many there are, by less than float32 shows
        scale = wide.mean(2, keepdim=True).square().mean(1, keepdim=True).sqrt().float() + 1e-8
        return (x / scale).to(setup.dtype), scale.flatten().cpu().numpy()

    def _coded(
        self, pieces: Sequence[Pcm], scales: NDArray[np.float32] | None, indices: Sequence[Tensor]
    ) -> list[EncodedSegment]:
        codes = codes_to_host(indices)
        rows = _rows([piece.shape[0] // self.spec.channels for piece in pieces])
        return [EncodedSegment([code[own] for code in codes], None if scales is None else scales[own]) for own in rows]

    def _decode(self, pieces: Sequence[EncodedSegment]) -> list[Pcm]:
        batches = list(grouped(pieces, self.rows))
        whole = pieces[0].codes[0].shape[1] * self.spec.hop_length == self.segment.length
        setups = [self._setup(sum(piece.streams for piece in batch), whole) for batch in batches]
        books = [zip(*(piece.codes for piece in batch), strict=True) for batch in batches]
        indices = [
            [torch.from_numpy(np.concatenate(book)).to(setup.device) for book in own]
            for own, setup in zip(books, setups, strict=True)
        ]
        states = [self.network.decoder_state(setup) for setup in setups]
        made = self.network.decode_each(indices, states, last=True)
        return [piece for batch, y in zip(batches, made, strict=True) for piece in self._pcm(batch, y)]

    def _pcm(self, pieces: Sequence[EncodedSegment], y: Tensor) -> list[Pcm]:
        scales = [np.ones(piece.streams, np.float32) if piece.scales is None else piece.scales for piece in pieces]
        y = y.float() * torch.from_numpy(np.concatenate(scales)).to(y.device)[:, None, None]
        made = audio(y)
        return [made[own] for own in _rows([piece.streams * self.spec.channels for piece in pieces])]


def _rows(counts: Sequence[int]) -> list[slice]:
    """Slices of the rows of consecutive pieces, whose numbers of rows are `counts`."""
    ends = np.cumsum(counts)
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def _in_groups(
    pieces: Sequence[Any], rows: int, length: Callable[[Any], int], run: Callable[[Sequence[Any]], list[T]]
) -> list[T]:
    """Runs pieces of equal length together, at most `rows` at a time, and returns the results in their order."""
    results: dict[int, T] = {}
    for _, places in groupby(sorted(range(len(pieces)), key=lambda i: length(pieces[i])), lambda i: length(pieces[i])):
        left = list(places)
        while left:
            group, left = left[:rows], left[rows:]
            results.update(zip(group, run([pieces[i] for i in group]), strict=True))
    return [results[place] for place in range(len(pieces))]


def cut(pcm: Pcm, segment: Segment) -> list[Pcm]:
    """A whole signal `(channels, samples)` in segments."""
    return [pcm[:, start : start + segment.length] for start in range(0, pcm.shape[1], segment.stride)]


def coded(tokens: CodecTokens) -> Iterator[EncodedSegment]:
    """Tokens by segment."""
    codes, scales = tokens.codes, tokens.scales
    start = 0
    for number, frames in enumerate(tokens.segment_frames):
        own = [code[:, start : start + frames].copy() for code in codes]
        yield EncodedSegment(own, None if scales is None else scales[:, number])
        start += frames


def joined(spec: CodecSpec, pieces: Sequence[EncodedSegment], num_samples: int, weights: str) -> CodecTokens:
    """The tokens of consecutive segments."""
    codes = [np.concatenate(book, axis=1) for book in zip(*(piece.codes for piece in pieces), strict=True)]
    scales = [piece.scales for piece in pieces if piece.scales is not None]
    return CodecTokens.from_codes(
        spec, codes, num_samples=num_samples, weights=weights, scales=np.stack(scales, axis=1) if scales else None
    )


class OverlapAdd:
    """Decoded segments one after the other to one signal, fading linearly from each to the next where they overlap.

    Triangular windows that are highest in the middle of a segment, divided by their sum (Défossez et al. 2022, "High Fidelity
    Neural Audio Compression"), which outside the overlap is the segment itself.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._window: Pcm | None = None
        self._tail = np.zeros((1, 0), np.float32)

    def push(self, piece: Pcm) -> Pcm:
        """The next segment, which is written over; returns what no later one overlaps."""
        stride = self._segment.stride
        if self._window is None:  # of the first segment's length, also where that is the last but one and not whole
            position = torch.linspace(0, 1, piece.shape[1] + 2, dtype=torch.float32)[1:-1]
            self._window = (0.5 - (position - 0.5).abs()).numpy()
            self._tail = piece[:, :0]
        both = min(self._tail.shape[1], piece.shape[1])
        if both:
            rising, falling = self._window[:both], self._window[stride : stride + both]
            piece[:, :both] = (self._tail[:, :both] * falling + piece[:, :both] * rising) / (rising + falling)
            if both < self._tail.shape[1]:
                piece = np.concatenate([piece, self._tail[:, both:]], axis=1)
        self._tail = piece[:, stride:].copy()
        return piece[:, :stride]

    def finish(self) -> Pcm:
        """The rest."""
        return self._tail


class SegmentEncoderSession(SessionBase, EncoderSession):
    """Audio in segments through the encoder and the quantizer."""

    def __init__(self, backend: CodecBackend, coder: SegmentCoder, *, channels: int, books: int, weights: str) -> None:
        self._backend, self._coder, self._segment = backend, coder, coder.segment
        self._channels, self._books, self._weights = channels, books, weights
        self._buffer = np.zeros((channels, self._segment.length), np.float32)
        self._filled = self._pushed = 0
        self._none = self._encode(iter(()), 0, 0)

    @property
    def latency_samples(self) -> int:
        return self._segment.length - 1

    @property
    def first_samples(self) -> int:
        return self._segment.length

    def push(self, pcm: object) -> CodecTokens:
        self._check_open()
        array = check_piece(self._backend.spec, pcm, self._channels)
        length, stride = self._segment.length, self._segment.stride
        count = max(0, (self._filled + array.shape[1] - self._segment.overlap) // stride)
        self._pushed += array.shape[1]
        if not count:
            self._buffer[:, self._filled : self._filled + array.shape[1]] = array
            self._filled += array.shape[1]
            return self._none
        return self._encode(self._whole(array), count * length // self._backend.spec.hop_length, count * stride)

    def finish(self) -> CodecTokens:
        self._check_open()
        if not self._pushed:
            raise InvalidInput("the audio is empty: nothing was pushed")
        rest = cut(self._buffer[:, : self._filled], self._segment)
        samples = self._filled if rest else 0
        tokens = self._encode(iter(rest), self._segment.frames(samples, self._backend.spec.hop_length), samples)
        self._ended = True
        return tokens

    def _whole(self, array: Pcm) -> Iterator[Pcm]:
        """Every segment that the audio completes; the rest stays in the buffer."""
        at, segment = 0, self._segment
        while array.shape[1] - at >= segment.length - self._filled:
            end = at + segment.length - self._filled
            self._buffer[:, self._filled :] = array[:, at:end]
            yield self._buffer.copy()
            self._buffer[:, : segment.overlap] = self._buffer[:, segment.stride :].copy()
            at, self._filled = end, segment.overlap
        self._buffer[:, self._filled : self._filled + array.shape[1] - at] = array[:, at:]
        self._filled += array.shape[1] - at

    def _encode(self, pieces: Iterator[Pcm], frames: int, samples: int) -> CodecTokens:
        """Runs segments that have so many frames in all, into arrays of the final size (small ones that outlive the large ones
        between them would fragment the heap).
        """
        streams = self._channels // self._backend.channels
        codes = [np.empty((streams, frames), np.int32) for _ in range(self._books)]
        scales: list[NDArray[np.float32]] = []
        at = 0
        for group in grouped(pieces, self._coder.together(streams)):
            with self._step():
                done = self._coder.encode(group, self._books)
            for piece in done:
                end = at + piece.codes[0].shape[1]
                for code, own in zip(codes, piece.codes, strict=True):
                    code[:, at:end] = own
                if piece.scales is not None:
                    scales.append(piece.scales)
                at = end
        factors = np.reshape(scales, (-1, streams)).T if self._segment.normalized else None
        return CodecTokens.from_codes(self._backend.spec, codes, num_samples=samples, weights=self._weights, scales=factors)


class SegmentDecoderSession(DecoderSessionBase, DecoderSession):
    """Tokens in segments through the decoder; segments come whole, but for the last."""

    def __init__(self, backend: CodecBackend, coder: SegmentCoder) -> None:
        super().__init__(backend)
        self._coder = coder
        self._overlap = OverlapAdd(coder.segment)

    @property
    def latency_samples(self) -> int:
        return self._coder.segment.overlap

    def push(self, tokens: CodecTokens) -> Pcm:
        self._accept(tokens)
        assert tokens.segment is not None
        made = np.empty((tokens.channels, len(tokens.segment_frames) * tokens.segment.stride), np.float32)
        at = 0
        for group in grouped(coded(tokens), self._coder.together(tokens.streams)):
            with self._step():
                pieces = self._coder.decode(group)
            for piece in pieces:
                ready = self._overlap.push(piece)
                made[:, at : at + ready.shape[1]] = ready
                at += ready.shape[1]
        return self._trimmed(made[:, :at])

    def finish(self) -> Pcm:
        self._check_complete()
        self._ended = True
        return self._trimmed(self._overlap.finish())


def grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive items, so many at a time, each group as soon as it is complete."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def encode_segments(coder: SegmentCoder, items: Sequence[Pcm], books: int, weights: str) -> list[CodecTokens]:
    """Several whole signals, all their segments together."""
    pieces = [cut(item, coder.segment) for item in items]
    done = iter(coder.encode([piece for own in pieces for piece in own], books))
    return [
        joined(coder.spec, [next(done) for _ in own], item.shape[1], weights) for item, own in zip(items, pieces, strict=True)
    ]


def decode_segments(coder: SegmentCoder, items: Sequence[CodecTokens]) -> list[Pcm]:
    """The audio of several whole signals, all their segments together."""
    pieces = [list(coded(item)) for item in items]
    done = iter(coder.decode([piece for own in pieces for piece in own]))
    results = []
    for item, own in zip(items, pieces, strict=True):
        overlap = OverlapAdd(coder.segment)
        parts = [overlap.push(next(done)) for _ in own]
        results.append(np.concatenate([*parts, overlap.finish()], axis=1)[:, : item.num_samples])
    return results
