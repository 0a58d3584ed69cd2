"""Codecs that work in segments, which are encoded and decoded independently, and so can run as a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import CodecBackend
from ..checks import check_begun, check_piece
from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import StreamSetup
from ..sessions import DecoderSession, EncoderSession, ends_on_failure
from ..specs import CodecSpec, Segment
from ..token_stream import TokenStream
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .batching import batched, by_equal_length, run_batches, split_rows
from .cpu_threads import usable_threads
from .guard import helper_guard, network_guard
from .overlap_add import OverlapAdd
from .sessions import to_network_input
from .transfers import codes_to_host, to_pcm


@dataclass(frozen=True)
class EncodedSegment:
    """Tokens of one segment.

    Attributes:
        codes: `(streams, frames)` for each codebook.
        scales: `(streams,)`, if the codec normalizes segments.
    """

    codes: list[NDArray[np.int32]]
    scales: NDArray[np.float32] | None

    @property
    def streams(self) -> int:
        return int(self.codes[0].shape[0])


@dataclass(frozen=True)
class SegmentCoder:
    """Encoder and decoder of segments, which runs those of equal length as batches.

    Attributes:
        setup: Makes the setup for a number of rows.
        rows: Most rows of a batch.
        batches: Most batches that run layer by layer; they only meet in layers that benefit from it.
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
    def max_streams(self) -> int:
        return self.rows * self.batches

    @property
    def device(self) -> torch.device:
        return self.setup(1).device

    def segments_at_once(self, streams: int) -> int:
        """Number of segments of `streams` streams each that run at the same time, in all threads."""
        threads = usable_threads() if self.device.type == "cpu" else 1
        return max(1, self.max_streams // streams) * threads

    def encode(self, segments: Sequence[Pcm], num_codebooks: int, threads: int) -> list[EncodedSegment]:
        """Encode segments `(channels, samples)` of any lengths."""
        batches = self._batches([segment.shape[1] for segment in segments], threads)
        return run_batches(segments, batches, lambda group: self._encode(group, num_codebooks), threads, helper_guard)

    def decode(self, segments: Sequence[EncodedSegment], threads: int) -> list[Pcm]:
        """Decode segments to `(channels, frames * hop_length)` each."""
        batches = self._batches([segment.codes[0].shape[1] for segment in segments], threads)
        return run_batches(segments, batches, self._decode, threads, helper_guard)

    def _batches(self, lengths: Sequence[int], threads: int) -> Iterator[list[int]]:
        """Batches of segments of equal length, at least one for each thread if possible."""
        return by_equal_length(lengths, min(self.max_streams, math.ceil(len(lengths) / threads)))

    def _encode(self, segments: Sequence[Pcm], num_codebooks: int) -> list[EncodedSegment]:
        batches = list(batched(segments, self.rows))
        inputs = [self._input(batch) for batch in batches]
        is_full = segments[0].shape[1] == self.segment.length
        states = [self.network.encoder_state(self._setup(len(x), is_full), num_codebooks) for x, _ in inputs]
        outputs = self.network.encode_many([x for x, _ in inputs], states, [True] * len(states))
        parts = zip(batches, inputs, outputs, strict=True)
        return [segment for batch, (_, scales), indices in parts for segment in self._split_codes(batch, scales, indices)]

    def _setup(self, rows: int, is_full: bool) -> StreamSetup:
        """Setup for full segments, or for the last segments of signals, which have any length."""
        return replace(self.setup(rows), dynamic_length=not is_full)

    def _input(self, segments: Sequence[Pcm]) -> tuple[Tensor, NDArray[np.float32] | None]:
        """Network input of a batch of segments, and their scales if the codec normalizes."""
        rows = sum(len(segment) for segment in segments) // self.spec.channels
        setup = self.setup(rows)
        x = to_network_input(segments, segments[0].shape[1], self.spec.channels, replace(setup, dtype=torch.float32))
        if not self.segment.normalized:
            return x.to(setup.dtype), None
        scale = segment_scale(x)
        return (x / scale).to(setup.dtype), scale.flatten().cpu().numpy()

    def _split_codes(
        self, segments: Sequence[Pcm], scales: NDArray[np.float32] | None, indices: Sequence[Tensor]
    ) -> list[EncodedSegment]:
        codes = codes_to_host(indices)
        counts = [segment.shape[0] // self.spec.channels for segment in segments]
        by_segment = zip(*(split_rows(code, counts) for code in codes), strict=True)
        split_scales = [None] * len(counts) if scales is None else split_rows(scales, counts)
        return [EncodedSegment(list(codes), scale) for codes, scale in zip(by_segment, split_scales, strict=True)]

    def _decode(self, segments: Sequence[EncodedSegment]) -> list[Pcm]:
        batches = list(batched(segments, self.rows))
        is_full = segments[0].codes[0].shape[1] * self.spec.hop_length == self.segment.length
        setups = [self._setup(sum(segment.streams for segment in batch), is_full) for batch in batches]
        by_codebook = [zip(*(segment.codes for segment in batch), strict=True) for batch in batches]
        indices = [
            [torch.from_numpy(np.concatenate(codes)).to(setup.device) for codes in codebooks]
            for codebooks, setup in zip(by_codebook, setups, strict=True)
        ]
        states = [self.network.decoder_state(setup) for setup in setups]
        outputs = self.network.decode_many(indices, states, [True] * len(states))
        return [segment for batch, y in zip(batches, outputs, strict=True) for segment in self._to_pcm(batch, y)]

    def _to_pcm(self, segments: Sequence[EncodedSegment], y: Tensor) -> list[Pcm]:
        scales = [np.ones(segment.streams, np.float32) if segment.scales is None else segment.scales for segment in segments]
        y = y.float() * torch.from_numpy(np.concatenate(scales)).to(y.device)[:, None, None]
        return split_rows(to_pcm(y), [segment.streams * self.spec.channels for segment in segments])


def segment_scale(x: Tensor) -> Tensor:
    """Scales `(rows, 1, 1)` of segments `(rows, samples, channels)`: the root mean square of the mean of their channels.

    The order of sums depends on the number of rows or threads, which in float64 is less than float32 shows.
    """
    wide = x.double() if x.device.type in ("cpu", "cuda") else x
    return wide.mean(2, keepdim=True).square().mean(1, keepdim=True).sqrt().to(x.dtype) + 1e-8


def split_pcm(pcm: Pcm, segment: Segment) -> list[Pcm]:
    """Split a whole signal `(channels, samples)` into segments."""
    return [pcm[:, start : start + segment.length] for start in range(0, pcm.shape[1], segment.stride)]


def split_tokens(tokens: CodecTokens) -> Iterator[EncodedSegment]:
    """Split tokens into segments."""
    codes, scales = tokens.codes, tokens.scales
    start = 0
    for number, frames in enumerate(tokens.segment_frames):
        part = [code[:, start : start + frames].copy() for code in codes]
        yield EncodedSegment(part, None if scales is None else scales[:, number])
        start += frames


def join_tokens(spec: CodecSpec, segments: Sequence[EncodedSegment], num_samples: int, weights: str) -> CodecTokens:
    """Join the tokens of consecutive segments."""
    codes = [np.concatenate(book, axis=1) for book in zip(*(segment.codes for segment in segments), strict=True)]
    scales = [segment.scales for segment in segments if segment.scales is not None]
    return CodecTokens.from_codes(
        spec, codes, num_samples=num_samples, weights=weights, scales=np.stack(scales, axis=1) if scales else None
    )


class SegmentEncoderSession(EncoderSession):
    """Encoder session that runs the encoder and the quantizer segment by segment."""

    def __init__(self, backend: CodecBackend, coder: SegmentCoder, *, channels: int, num_codebooks: int, weights: str) -> None:
        super().__init__()
        self._backend, self._coder, self._segment = backend, coder, coder.segment
        self._channels, self._num_codebooks, self._weights = channels, num_codebooks, weights
        self._buffer = np.zeros((channels, self._segment.length), np.float32)
        self._filled = self._pushed = 0
        self._none = self._encode(iter(()), 0, 0)

    @property
    def latency_samples(self) -> int:
        return self._segment.length - 1

    @property
    def first_samples(self) -> int:
        return self._segment.length

    def _push(self, chunk: object) -> CodecTokens:
        array = check_piece(self._backend.spec, chunk, self._channels)
        length, stride = self._segment.length, self._segment.stride
        count = max(0, (self._filled + array.shape[1] - self._segment.overlap) // stride)
        self._pushed += array.shape[1]
        if not count:
            self._buffer[:, self._filled : self._filled + array.shape[1]] = array
            self._filled += array.shape[1]
            return self._none
        return self._encode(self._complete_segments(array), count * length // self._backend.spec.hop_length, count * stride)

    def _finish(self) -> CodecTokens:
        check_begun(self._pushed)
        rest = split_pcm(self._buffer[:, : self._filled], self._segment)
        samples = self._filled if rest else 0
        return self._encode(iter(rest), self._segment.frames(samples, self._backend.spec.hop_length), samples)

    def _complete_segments(self, array: Pcm) -> Iterator[Pcm]:
        """Yield every segment that the audio completes; the rest stays in the buffer."""
        start, segment = 0, self._segment
        while array.shape[1] - start >= segment.length - self._filled:
            end = start + segment.length - self._filled
            self._buffer[:, self._filled :] = array[:, start:end]
            yield self._buffer.copy()
            self._buffer[:, : segment.overlap] = self._buffer[:, segment.stride :].copy()
            start, self._filled = end, segment.overlap
        self._buffer[:, self._filled : self._filled + array.shape[1] - start] = array[:, start:]
        self._filled += array.shape[1] - start

    @ends_on_failure
    def _encode(self, segments: Iterator[Pcm], frames: int, samples: int) -> CodecTokens:
        """Encode segments of `frames` frames in all into arrays of the final size; see `TileEncoderSession._run`."""
        streams = self._channels // self._backend.channels
        codes = [np.empty((streams, frames), np.int32) for _ in range(self._num_codebooks)]
        scales: list[NDArray[np.float32]] = []
        start = 0
        for group in batched(segments, self._coder.segments_at_once(streams)):
            with network_guard(self._coder.device) as threads:
                encoded = self._coder.encode(group, self._num_codebooks, threads)
            for segment in encoded:
                end = start + segment.codes[0].shape[1]
                for code, part in zip(codes, segment.codes, strict=True):
                    code[:, start:end] = part
                if segment.scales is not None:
                    scales.append(segment.scales)
                start = end
        factors = np.reshape(scales, (-1, streams)).T if self._segment.normalized else None
        return CodecTokens.from_codes(self._backend.spec, codes, num_samples=samples, weights=self._weights, scales=factors)


class SegmentDecoderSession(DecoderSession):
    """Decoder session that runs the decoder segment by segment. Segments are pushed whole, except the last."""

    def __init__(self, backend: CodecBackend, coder: SegmentCoder) -> None:
        super().__init__()
        self._coder, self._tokens = coder, TokenStream(backend)
        self._overlap = OverlapAdd(coder.segment)

    @property
    def latency_samples(self) -> int:
        return self._coder.segment.overlap

    @property
    def first_frames(self) -> int:
        return self._coder.spec.tile_frames

    def _push(self, chunk: CodecTokens) -> Pcm:
        self._tokens.accept(chunk)
        return self._decode(chunk)

    @ends_on_failure
    def _decode(self, tokens: CodecTokens) -> Pcm:
        assert tokens.segment is not None
        pcm = np.empty((tokens.channels, len(tokens.segment_frames) * tokens.segment.stride), np.float32)
        start = 0
        for group in batched(split_tokens(tokens), self._coder.segments_at_once(tokens.streams)):
            with network_guard(self._coder.device) as threads:
                segments = self._coder.decode(group, threads)
            for segment in segments:
                ready = self._overlap.push(torch.from_numpy(segment)).numpy()
                pcm[:, start : start + ready.shape[1]] = ready
                start += ready.shape[1]
        return self._tokens.trim(pcm[:, :start])

    def _finish(self) -> Pcm:
        self._tokens.check_complete()
        return self._tokens.trim(self._overlap.finish().numpy())


def encode_segments(
    coder: SegmentCoder, items: Sequence[Pcm], num_codebooks: int, weights: str, threads: int
) -> list[CodecTokens]:
    """Encode several whole signals, with all their segments batched."""
    segments = [split_pcm(item, coder.segment) for item in items]
    encoded = coder.encode([segment for group in segments for segment in group], num_codebooks, threads)
    by_item = split_rows(encoded, list(map(len, segments)))
    return [join_tokens(coder.spec, group, item.shape[1], weights) for item, group in zip(items, by_item, strict=True)]


def decode_segments(coder: SegmentCoder, items: Sequence[CodecTokens], threads: int) -> list[Pcm]:
    """Decode several whole signals, with all their segments batched."""
    segments = [list(split_tokens(item)) for item in items]
    decoded = coder.decode([segment for group in segments for segment in group], threads)
    results = []
    for item, group in zip(items, split_rows(decoded, list(map(len, segments))), strict=True):
        overlap = OverlapAdd(coder.segment)
        parts = [overlap.push(torch.from_numpy(segment)) for segment in group]
        results.append(torch.cat([*parts, overlap.finish()], dim=1)[:, : item.num_samples].numpy())
    return results
