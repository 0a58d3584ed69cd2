"""Signals of different lengths side by side, each as if it were alone.

All start together and run tile by tile on the same grid as a single one. Those that end within a tile finish together: layers
know where each ends (`StreamSetup.ends`), and find after it what they would find alone.
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
from .sessions import audio, signals
from .transfers import codes_to_host, to_device

S = TypeVar("S", bound=State)


FEWEST_FRAMES = 16
"""Signals that end within fewer of the codec's frames do so among those of equal length: less may be left than is mirrored."""


def run_ragged(
    lengths: Sequence[int],
    tile: int,
    fewest: int,
    state: S,
    cut: Callable[[Sequence[int], int, int], list[Tensor]],
    step: Callable[[list[Tensor], S, bool], Sequence[NDArray[Any]]],
) -> list[list[list[NDArray[Any]]]]:
    """Runs all signals to their ends.

    Args:
        lengths: Of each signal.
        tile: How much runs at a time.
        fewest: How much must be left of signals that end together.
        state: Of a new stream with a row a signal.
        cut: `(rows, start, end)` to the inputs of those signals in that range, rows first.
        step: Inputs, state and whether they end, to outputs, rows first.

    Returns:
        For each signal the outputs of its steps, each a list of arrays with one row; the last may go on after its end.
    """
    outputs: list[list[list[NDArray[Any]]]] = [[] for _ in lengths]
    active = list(range(len(lengths)))

    def of(rows: list[int]) -> S:
        return state if rows == active else state.take([active.index(row) for row in rows])

    def run(rows: list[int], start: int, end: int, last: bool) -> None:
        made = step(cut(rows, start, end), of(rows), last)
        for place, row in enumerate(rows):
            outputs[row].append([array[place : place + 1] for array in made])

    start = 0
    while active:
        ending = [row for row in active if lengths[row] - start < tile]
        together = [row for row in ending if lengths[row] - start >= fewest]
        alike = [
            [row for row in ending if lengths[row] == length] for length in {lengths[row] for row in {*ending} - {*together}}
        ]
        for rows in filter(None, [together, *alike]):
            run(rows, start, max(lengths[row] for row in rows), True)
        if ending:
            going = [row for row in active if row not in ending]
            state, active = of(going), going
        if active:
            run(active, start, start + tile, False)
            start += tile
    return outputs


def encode_together(
    spec: CodecSpec, network: CodecNetwork, setup: StreamSetup, items: Sequence[Pcm], books: int, tile_frames: int
) -> list[list[NDArray[np.int32]]]:
    """The codes of each item, `(streams, frames / stride)` a codebook; `setup` has a row for every stream."""
    rows = [row for item in items for row in item.reshape(item.shape[0] // spec.channels, spec.channels, item.shape[1])]

    def cut(chosen: Sequence[int], start: int, end: int) -> list[Tensor]:
        return [signals([rows[row][:, start:end] for row in chosen], end - start, spec.channels, setup)]

    lengths = [row.shape[1] + spec.missing_samples(row.shape[1]) for row in rows]
    steps = run_ragged(
        lengths,
        tile_frames * spec.hop_length,
        FEWEST_FRAMES * spec.hop_length,
        network.encoder_state(_ending(setup, lengths), books),
        cut,
        lambda x, state, last: codes_to_host(network.encode_step(x[0], state, last)),
    )
    frames = {length: network.frames_encoded(length, True) for length in set(lengths)}
    codes = [
        [_joined(book)[:, : frames[length] // stride] for book, stride in zip(zip(*row, strict=True), spec.strides, strict=False)]
        for row, length in zip(steps, lengths, strict=True)
    ]
    together = _by_item(codes, [item.shape[0] // spec.channels for item in items])
    return [[np.concatenate(books) for books in zip(*mine, strict=True)] for mine in together]


def decode_together(
    spec: CodecSpec, network: CodecNetwork, setup: StreamSetup, items: Sequence[CodecTokens], tile_frames: int
) -> list[Pcm]:
    """The audio of each item, `(channels, samples)`; `setup` has a row for every stream. All have as many codebooks."""
    strides = items[0].strides
    rows = [list(books) for item in items for books in zip(*item.codes, strict=True)]

    def cut(chosen: Sequence[int], start: int, end: int) -> list[Tensor]:
        books = zip(*(rows[row] for row in chosen), strict=True)
        parts = ([code[None, start // s : end // s] for code in book] for book, s in zip(books, strides, strict=True))
        return [to_device(part, (end - start) // s, setup.device) for part, s in zip(parts, strides, strict=True)]

    def step(indices: list[Tensor], state: Any, last: bool) -> list[Pcm]:
        made = audio(network.decode_step(indices, state, last))
        return [made.reshape(made.shape[0] // spec.channels, spec.channels, made.shape[1])]

    lengths = [row[0].shape[0] * strides[0] for row in rows]
    steps = run_ragged(lengths, tile_frames, FEWEST_FRAMES, network.decoder_state(_ending(setup, lengths)), cut, step)
    together = _by_item([_joined([own[0] for own in row])[0] for row in steps], [item.streams for item in items])
    return [_joined(mine, 0)[:, : item.num_samples].copy() for item, mine in zip(items, together, strict=True)]


def _joined(parts: Sequence[NDArray[Any]], axis: int = -1) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def _ending(setup: StreamSetup, lengths: Sequence[int]) -> StreamSetup:
    """Setup for signals of these lengths."""
    return setup if len(set(lengths)) == 1 else replace(setup, lengths=tuple(lengths))


def _by_item(rows: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    """Consecutive rows, so many for each item."""
    ends = np.cumsum(counts)
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]
