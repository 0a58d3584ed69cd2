"""Pools of codecs that work in segments: those of all ready streams run together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch

from ...backend import CodecBackend
from ...checks import check_begun, check_piece
from ...errors import CodecError
from ...pools import Pool, PoolSettings, PoolStream
from ...token_stream import TokenStream
from ...tokens.tokens import CodecTokens
from ...validation import Pcm
from ..batching import split_rows
from ..columns import Columns
from ..guard import NETWORK_ERRORS, network_failure, network_guard
from ..overlap_add import OverlapAdd
from ..segments import EncodedSegment, SegmentCoder, join_tokens, split_pcm, split_tokens

In = TypeVar("In")
Out = TypeVar("Out")


class SegmentStream(PoolStream[In, Out]):
    """Stream whose next segments run in one step: one, or what is left at the end."""

    @abstractmethod
    def take(self) -> list[Any]:
        """Take the next segments; none if the end needs no more."""

    @abstractmethod
    def output(self, made: list[Any], last: bool) -> Any:
        """Convert what became of them to what the caller gets."""


class SegmentPool(Pool[In, Out]):
    """Pool that runs the segments of all ready streams together.

    Args:
        coder: Runs segments of equal length as batches.
    """

    def __init__(self, backend: CodecBackend, settings: PoolSettings, coder: SegmentCoder) -> None:
        super().__init__(backend, settings)
        self.coder = coder

    @abstractmethod
    def run_segments(self, segments: list[Any], threads: int) -> list[Any]:
        """Encode or decode segments."""

    def _run(self, streams: Sequence[PoolStream[In, Out]]) -> Iterator[tuple[PoolStream[In, Out], Out | CodecError]]:
        members = cast(Sequence[SegmentStream[In, Out]], streams)
        with self.lock:
            lasts = [not stream._has_tile for stream in members]
            taken = [stream.take() for stream in members]
        try:
            with network_guard(self.coder.device) as threads:
                made = self.run_segments([segment for segments in taken for segment in segments], threads)
        except CodecError as error:
            yield from ((stream, error) for stream in members)
            return
        except NETWORK_ERRORS as error:
            yield from ((stream, network_failure(error)) for stream in members)
            return
        for stream, last, results in zip(members, lasts, split_rows(made, list(map(len, taken))), strict=True):
            stream._ended = stream._ended or last
            yield stream, stream.output(list(results), last)


class SegmentEncoderStream(SegmentStream[Pcm, CodecTokens]):
    """Stream of a `SegmentEncoderPool`."""

    _pool: SegmentEncoderPool

    def __init__(self, pool: SegmentEncoderPool) -> None:
        super().__init__(pool)
        self._spec = pool.backend.spec
        self._audio = Columns(np.zeros((self._spec.channels, 0), np.float32))
        self._overlap = self._audio.take(0)
        self._pushed = self._covered = 0

    def _accept(self, value: Pcm) -> None:
        array = check_piece(self._spec, value, self._spec.channels)
        self._pushed += array.shape[1]
        self._audio.push(array.copy())

    @property
    def _queued_seconds(self) -> float:
        return self._audio.count / self._spec.sample_rate

    @property
    def _has_tile(self) -> bool:
        return self._audio.count >= self._missing

    @property
    def _missing(self) -> int:
        """Samples that the next segment needs beside those that it shares with the one before."""
        return int(self._pool.coder.segment.length - self._overlap.shape[1])

    def take(self) -> list[Pcm]:
        segment, has_tile = self._pool.coder.segment, self._has_tile
        audio = np.concatenate([self._overlap, self._audio.take(self._missing if has_tile else self._audio.count)], axis=1)
        self._overlap = audio[:, segment.stride :]
        return [audio] if has_tile else split_pcm(audio, segment)

    def output(self, made: list[EncodedSegment], last: bool) -> CodecTokens:
        samples = self._pushed - self._covered if last else self._pool.coder.segment.stride
        self._covered += samples
        if not made:
            made = [self._pool.nothing]
        return join_tokens(self._spec, made, samples, self._pool.label)

    def _check_complete(self) -> None:
        check_begun(self._pushed)


class SegmentEncoderPool(SegmentPool[Pcm, CodecTokens]):
    """Encoder pool of a codec that works in segments.

    Args:
        num_codebooks: Number of codebooks of all streams.
        label: Label of the weights.
    """

    def __init__(
        self, backend: CodecBackend, settings: PoolSettings, coder: SegmentCoder, num_codebooks: int, label: str
    ) -> None:
        super().__init__(backend, settings, coder)
        self._num_codebooks, self.label = num_codebooks, label
        scales = np.zeros((1, 0), np.float32) if coder.segment.normalized else None
        self.nothing = EncodedSegment([np.zeros((1, 0), np.int32)] * num_codebooks, scales)

    def _new_stream(self) -> SegmentEncoderStream:
        return SegmentEncoderStream(self)

    def run_segments(self, segments: list[Pcm], threads: int) -> list[EncodedSegment]:
        return self.coder.encode(segments, self._num_codebooks, threads)

    def _seconds(self, output: CodecTokens) -> float:
        return output.seconds


class SegmentDecoderStream(SegmentStream[CodecTokens, Pcm]):
    """Stream of a `SegmentDecoderPool`, of one signal of one stream of tokens."""

    def __init__(self, pool: SegmentDecoderPool) -> None:
        super().__init__(pool)
        self._tokens = TokenStream(pool.backend)
        self._segments: list[EncodedSegment] = []
        self._overlap = OverlapAdd(pool.coder.segment)

    def _accept(self, value: CodecTokens) -> None:
        self._tokens.accept(value)
        self._tokens.check_single()
        self._segments += split_tokens(value)

    @property
    def _queued_seconds(self) -> float:
        return float(sum(segment.codes[0].shape[1] for segment in self._segments) / self._pool.backend.frame_rate)

    @property
    def _has_tile(self) -> bool:
        return bool(self._segments)

    def take(self) -> list[EncodedSegment]:
        return [self._segments.pop(0)] if self._segments else []

    def output(self, made: list[Pcm], last: bool) -> Pcm:
        ready = self._overlap.finish() if last else self._overlap.push(torch.from_numpy(made[0]))
        return self._tokens.trim(ready.numpy())

    def _check_complete(self) -> None:
        self._tokens.check_complete()


class SegmentDecoderPool(SegmentPool[CodecTokens, Pcm]):
    """Decoder pool of a codec that works in segments."""

    def _new_stream(self) -> SegmentDecoderStream:
        return SegmentDecoderStream(self)

    def run_segments(self, segments: list[EncodedSegment], threads: int) -> list[Pcm]:
        return self.coder.decode(segments, threads)

    def _seconds(self, output: Pcm) -> float:
        return float(output.shape[1] / self.backend.sample_rate)
