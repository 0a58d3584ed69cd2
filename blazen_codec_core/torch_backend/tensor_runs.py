"""Whole signals in tensors through a network, on its device and through autograd.

A signal is one span, or a span for each segment. Spans run as a batch, in tiles or at once, and each gives what it gives alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import Layer, State, StreamSetup
from ..nn.pipeline import Join, Split, Step, as_stage, run_parallel, run_pipeline
from ..specs import CodecSpec, Segment
from .batching import batched, by_equal_length
from .guard import helper_guard
from .overlap_add import OverlapAdd
from .ragged_batch import MIN_FRAMES, run_ragged, with_lengths
from .segments import segment_scale
from .tensor_tokens import frames_of

Guard = Callable[[], AbstractContextManager[int]]
"""Context of a run, which gives the number of threads."""


class Span(NamedTuple):
    """Part of a signal that runs by itself.

    Attributes:
        row: Row of the signal in its batch.
        samples: Samples of the span, from `start` on.
        frames: Frames of the span, from `frame` on.
    """

    row: int
    start: int
    samples: int
    frame: int
    frames: int


def spans_of(spec: CodecSpec, lengths: Sequence[int]) -> list[Span]:
    """Spans of signals of these lengths in samples, row by row."""
    segment, hop = spec.segment, spec.hop_length
    spans = []
    for row, length in enumerate(lengths):
        if segment is None:
            spans.append(Span(row, 0, length, 0, frames_of(spec, length)))
            continue
        frame = 0
        for number, start in enumerate(range(0, length, segment.stride)):
            frames = segment.frames_of(number, length, hop)
            spans.append(Span(row, start, min(segment.length, length - start), frame, frames))
            frame += frames
    return spans


@dataclass(frozen=True)
class Part:
    """A function of signals `(batch, time, channels)` that streams: a part of a network.

    Attributes:
        init_state: From the setup of a stream to its state.
        step: From the input, the state and `last` to one output for each codebook, or to one.
        steps: `step` as functions that run in turn, each giving a list of outputs at the end.
        least: Fewest frames or samples that a batch of signals of different lengths may end with.
    """

    init_state: Callable[[StreamSetup], Any]
    step: Callable[[Tensor, Any, bool], Sequence[Tensor]]
    steps: Callable[[Any], list[Step | Split | Join]]
    least: int


def part_of(layer: Layer, least: int, convert: Callable[[Tensor], Tensor] = lambda y: y) -> Part:
    """An encoder or a decoder as a `Part`; `convert` maps its output."""

    def step(x: Tensor, state: Any, last: bool) -> Sequence[Tensor]:
        return [convert(layer.step(x, state, last))]

    return Part(layer.init_state, step, lambda state: [*layer.steps(state), lambda y, last: [convert(y)]], least)


def encoder_with_quantizer(network: CodecNetwork, num_codebooks: int, least: int) -> Part:
    """Encoder and quantizer as a `Part` with an output for each codebook."""

    def step(x: Tensor, state: Any, last: bool) -> Sequence[Tensor]:
        return network.encode_step(x, state, last)

    return Part(lambda setup: network.encoder_state(setup, num_codebooks), step, network.encoder_steps, least)


@dataclass(frozen=True)
class TensorRunner:
    """Runs the parts of a network on whole signals in tensors.

    Attributes:
        setup: Makes the setup of a batch of a number of rows.
        guard: Context of a run.
        tile: From the number of rows to the frames of a tile; `None` runs whole signals at once, as autograd needs.
        rows: Most segments of a batch; `None` for all.
    """

    spec: CodecSpec
    network: CodecNetwork
    setup: Callable[[int], StreamSetup]
    guard: Guard
    tile: Callable[[int], int] | None = None
    rows: int | None = None

    def encode_latents(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Encode audio `(batch, samples, channels)` to latents `(batch, frames, latent)` before the quantizer."""
        part = part_of(self.network.encoder, MIN_FRAMES * self.spec.hop_length, self.network.latent_of)
        (z,) = self._encode(x, lengths, part, (1,))
        return z

    def encode(self, x: Tensor, lengths: Sequence[int], num_codebooks: int) -> list[Tensor]:
        """Encode audio `(batch, samples, channels)` to indices `(batch, frames / stride)` of each codebook."""
        part = encoder_with_quantizer(self.network, num_codebooks, MIN_FRAMES * self.spec.hop_length)
        return self._encode(x, lengths, part, self.spec.strides[:num_codebooks])

    def _encode(self, x: Tensor, lengths: Sequence[int], part: Part, strides: Sequence[int]) -> list[Tensor]:
        spans = spans_of(self.spec, lengths)
        hop = self.spec.hop_length

        def cut(wanted: Sequence[Span], start: int, end: int) -> Tensor:
            signal = _cut(x, [(s.row, s.start + start, s.start + min(end, s.samples)) for s in wanted], end - start)
            if self.spec.segment and self.spec.segment.normalized:
                signal = (signal / segment_scale(signal)).to(signal.dtype)
            return signal.to(self.setup(1).dtype)

        padded = [s.samples + self.spec.missing_samples(s.samples) for s in spans]
        outputs = self._run(spans, padded, cut, part, hop)
        placed: list[list[list[Tensor]]] = [[[] for _ in lengths] for _ in strides]
        for span, made in zip(spans, outputs, strict=True):
            for rows, y, stride in zip(placed, made, strides, strict=True):
                rows[span.row].append(y[:, : span.frames // stride])
        return [stack_rows(rows) for rows in placed]

    def scales(self, x: Tensor, lengths: Sequence[int]) -> Tensor | None:
        """Scales `(batch, segments)` by which the segments of audio `(batch, samples, channels)` are divided."""
        if not (self.spec.segment and self.spec.segment.normalized):
            return None
        rows: list[list[Tensor]] = [[] for _ in lengths]
        for s in spans_of(self.spec, lengths):
            rows[s.row].append(segment_scale(x[s.row : s.row + 1, s.start : s.start + s.samples])[:, 0])
        return stack_rows(rows)

    def decode_latents(self, z: Tensor, lengths: Sequence[int], scales: Tensor | None) -> Tensor:
        """Decode latents `(batch, frames, latent)` to audio `(batch, samples, channels)`, with zeros after a signal's length."""
        spans = spans_of(self.spec, lengths)

        def cut(wanted: Sequence[Span], start: int, end: int) -> Tensor:
            signal = _cut(z, [(s.row, s.frame + start, s.frame + min(end, s.frames)) for s in wanted], end - start)
            return signal.to(self.setup(1).dtype)

        outputs = self._run(spans, [s.frames for s in spans], cut, part_of(self.network.decoder, MIN_FRAMES), 1)
        rows: list[list[Tensor]] = [[] for _ in lengths]
        for span, (y,) in zip(spans, outputs, strict=True):
            rows[span.row].append(y)
        if self.spec.segment:
            rows = [
                self._overlapped(self.spec.segment, row, None if scales is None else scales[number])
                for number, row in enumerate(rows)
            ]
        return stack_rows([[_joined(row)[:, :length]] for row, length in zip(rows, lengths, strict=True)])

    @staticmethod
    def _overlapped(segment: Segment, parts: Sequence[Tensor], scales: Tensor | None) -> list[Tensor]:
        """Decoded segments `(1, samples, channels)` of a signal, scaled and crossfaded."""
        overlap, rows = OverlapAdd(segment), []
        for number, part in enumerate(parts):
            scaled = part if scales is None else part.to(scales.dtype) * scales[number]
            rows.append(overlap.push(scaled[0].t()).t()[None])
        return [*rows, overlap.finish().t()[None]]

    def _run(
        self,
        spans: Sequence[Span],
        lengths: Sequence[int],
        cut: Callable[[Sequence[Span], int, int], Tensor],
        part: Part,
        hop: int,
    ) -> list[list[Tensor]]:
        """Outputs of spans, each a list of tensors of one row.

        Args:
            lengths: Length of each span, in units of the input.
            cut: From spans, a start and an end to the input in that range.
            hop: Units of the input for each frame.
        """
        outputs: list[list[Tensor]] = [[] for _ in spans]

        def run(numbers: Sequence[int], threads: int) -> None:
            group, own = [spans[number] for number in numbers], [lengths[number] for number in numbers]
            tile = max(own) + 1 if self.tile is None or self.spec.segment else self.tile(len(group)) * hop
            method = self._run_one if len(group) == 1 and self.tile is not None else self._run_batch
            made = method(group, own, cut, part, tile, threads)
            for number, parts in zip(numbers, made, strict=True):
                outputs[number] = [_joined(each) for each in zip(*parts, strict=True)]

        with self.guard() as threads:
            if self.spec.segment:
                run_parallel(lambda numbers: run(numbers, 1), self._groups(lengths), threads, helper_guard)
            else:
                for numbers in self._groups(lengths):
                    run(numbers, threads)
        return outputs

    def _groups(self, lengths: Sequence[int]) -> Iterable[Sequence[int]]:
        """Numbers of spans that run together."""
        count = self.rows or len(lengths)
        return by_equal_length(lengths, count) if self.spec.segment else batched(range(len(lengths)), count)

    def _run_one(
        self, spans: Sequence[Span], lengths: Sequence[int], cut: Any, part: Part, tile: int, threads: int
    ) -> list[list[Sequence[Tensor]]]:
        """Run one span, several tiles of it at once."""
        (length,) = lengths
        state = part.init_state(self.setup(1))
        outputs: list[Sequence[Tensor]] = []

        def store(item: tuple[Sequence[Tensor], bool]) -> tuple[()]:
            outputs.append(item[0])
            return ()

        def tiles() -> Iterator[tuple[Tensor, bool]]:
            for start in range(0, length // tile * tile + 1, tile):
                end = min(start + tile, length)
                yield cut(spans, start, end), end - start < tile

        run_pipeline([*map(as_stage, part.steps(state)), store], tiles(), threads, helper_guard)
        return [outputs]

    def _run_batch(
        self, spans: Sequence[Span], lengths: Sequence[int], cut: Any, part: Part, tile: int, threads: int
    ) -> list[list[Sequence[Tensor]]]:
        """Run spans as a batch."""

        def slice_rows(rows: Sequence[int], start: int, end: int) -> list[Tensor]:
            return [cut([spans[row] for row in rows], start, end)]

        def step(inputs: list[Tensor], state: State, last: bool) -> Sequence[Tensor]:
            return part.step(inputs[0], state, last)

        state = part.init_state(with_lengths(self.setup(len(spans)), lengths))
        return run_ragged(lengths, tile, part.least, state, slice_rows, step)


def _cut(x: Tensor, ranges: Sequence[tuple[int, int, int]], length: int) -> Tensor:
    """Ranges `(row, start, end)` of the rows of a signal `(batch, time, channels)`, padded with zeros to `length`."""
    rows, starts, ends = zip(*ranges, strict=True)
    if rows == tuple(range(len(x))) and len(set(starts)) == len(set(ends)) == 1:
        part = x[:, starts[0] : ends[0]]
        return F.pad(part, (0, 0, 0, length - part.shape[1])) if part.shape[1] < length else part
    parts = [x[row, start : max(start, end)] for row, start, end in ranges]
    return torch.stack([F.pad(part, (0, 0, 0, length - part.shape[0])) for part in parts])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def stack_rows(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Rows, each in parts `(1, time, …)`, as one tensor, padded with zeros to the longest."""
    joined = [_joined(parts) for parts in rows]
    longest = max(row.shape[1] for row in joined)
    pad = partial(F.pad, mode="constant", value=0)
    after = (0, 0) * (joined[0].dim() - 2)
    return torch.cat([pad(row, (*after, 0, longest - row.shape[1])) for row in joined])
