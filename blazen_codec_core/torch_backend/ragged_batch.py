"""Ragged batches: signals of different lengths run as one batch, each with the same output as by itself.

All begin together and run on the same grid of tiles as a single signal. Those that end within a tile are finished together.
Layers know the length of each (`StreamSetup.lengths`), and pad after it as they would at the end of a single signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import State, StreamSetup
from ..specs import CodecSpec
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .batching import joined, split_rows
from .sessions import to_network_input
from .transfers import codes_to_host, to_device, to_pcm

S = TypeVar("S", bound=State)

MIN_FRAMES = 16
"""Signals with fewer frames left are finished among those of equal length: less may be left than a layer mirrors."""


def run_ragged(
    lengths: Sequence[int],
    tile: int,
    min_left: int,
    state: S,
    slice_rows: Callable[[Sequence[int], int, int], list[Tensor]],
    step: Callable[[list[Tensor], S, bool], Sequence[Any]],
) -> list[list[Sequence[Any]]]:
    """Run all signals to their ends.

    Args:
        lengths: Length of each signal.
        tile: Size of a tile.
        min_left: Least amount left of signals that are finished together, unless they have equal lengths.
        state: State of a new stream with a row for each signal.
        slice_rows: From `(rows, start, end)` to the network's inputs in that range, one row for each signal.
        step: From inputs, state and `last` to outputs, arrays or tensors with one row for each signal.

    Returns:
        For each signal the outputs of its steps, each a list with one row; the last may exceed its length.
    """
    outputs: list[list[Sequence[Any]]] = [[] for _ in lengths]
    active = list(range(len(lengths)))

    def state_of(rows: list[int]) -> S:
        return state if rows == active else state.take([active.index(row) for row in rows])

    def run(rows: list[int], start: int, end: int, last: bool) -> None:
        arrays = step(slice_rows(rows, start, end), state_of(rows), last)
        for index, row in enumerate(rows):
            outputs[row].append([array[index : index + 1] for array in arrays])

    start = 0
    while active:
        ending = [row for row in active if lengths[row] - start < tile]
        long_enough = [row for row in ending if lengths[row] - start >= min_left]
        short_lengths = {lengths[row] for row in set(ending) - set(long_enough)}
        of_equal_length = [[row for row in ending if lengths[row] == length] for length in short_lengths]
        for rows in filter(None, [long_enough, *of_equal_length]):
            run(rows, start, max(lengths[row] for row in rows), True)
        if ending:
            continuing = [row for row in active if row not in ending]
            state, active = state_of(continuing), continuing
        if active:
            run(active, start, start + tile, False)
            start += tile
    return outputs


def encode_ragged(
    spec: CodecSpec, network: CodecNetwork, setup: StreamSetup, items: Sequence[Pcm], num_codebooks: int, tile_frames: int
) -> list[list[NDArray[np.int32]]]:
    """Encode items as one batch; `setup` has a row for every stream.

    Returns:
        For each item its codes, `(streams, frames / stride)` for each codebook.
    """
    signals = [signal for item in items for signal in item.reshape(-1, spec.channels, item.shape[1])]

    def slice_rows(rows: Sequence[int], start: int, end: int) -> list[Tensor]:
        return [to_network_input([signals[row][:, start:end] for row in rows], end - start, spec.channels, setup)]

    lengths = [signal.shape[1] + spec.missing_samples(signal.shape[1]) for signal in signals]
    steps = run_ragged(
        lengths,
        tile_frames * spec.hop_length,
        MIN_FRAMES * spec.hop_length,
        network.encoder_state(with_lengths(setup, lengths), num_codebooks),
        slice_rows,
        lambda inputs, state, last: codes_to_host(network.encode_step(inputs[0], state, last)),
    )
    frames = {length: network.frames_encoded(length, True) for length in set(lengths)}
    codes = [
        [
            joined(codebook)[:, : frames[length] // stride]
            for codebook, stride in zip(zip(*outputs, strict=True), spec.strides, strict=False)
        ]
        for outputs, length in zip(steps, lengths, strict=True)
    ]
    by_item = split_rows(codes, [item.shape[0] // spec.channels for item in items])
    return [[np.concatenate(streams) for streams in zip(*item, strict=True)] for item in by_item]


def decode_ragged(
    spec: CodecSpec, network: CodecNetwork, setup: StreamSetup, items: Sequence[CodecTokens], tile_frames: int
) -> list[Pcm]:
    """Decode items of equal numbers of codebooks as one batch, to `(channels, samples)` each; see `encode_ragged`."""
    strides = items[0].strides
    streams = [list(codes) for item in items for codes in zip(*item.codes, strict=True)]

    def slice_rows(rows: Sequence[int], start: int, end: int) -> list[Tensor]:
        by_codebook = zip(*(streams[row] for row in rows), strict=True)
        parts = ([code[None, start // s : end // s] for code in codes] for codes, s in zip(by_codebook, strides, strict=True))
        return [to_device(part, (end - start) // s, setup.device) for part, s in zip(parts, strides, strict=True)]

    def step(indices: list[Tensor], state: Any, last: bool) -> list[Pcm]:
        pcm = to_pcm(network.decode_step(indices, state, last))
        return [pcm.reshape(pcm.shape[0] // spec.channels, spec.channels, pcm.shape[1])]  # there may be no samples

    lengths = [codes[0].shape[0] * strides[0] for codes in streams]
    initial = network.decoder_state(with_lengths(setup, lengths))
    steps = run_ragged(lengths, tile_frames, MIN_FRAMES, initial, slice_rows, step)
    signals = [joined([pcm for (pcm,) in outputs])[0] for outputs in steps]
    by_item = split_rows(signals, [item.streams for item in items])
    return [joined(parts, 0)[:, : item.num_samples].copy() for item, parts in zip(items, by_item, strict=True)]


def with_lengths(setup: StreamSetup, lengths: Sequence[int]) -> StreamSetup:
    """Setup for signals of these lengths."""
    return setup if len(set(lengths)) == 1 else replace(setup, lengths=tuple(lengths))
