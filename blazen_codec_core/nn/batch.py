"""Signals of different lengths side by side, each as if it were alone.

All start together and run tile by tile on the same grid as a single one. Those that end within a tile finish together: layers know
where each ends (`StreamSetup.ends`), and what they find after that is what they would find alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import Pcm
from ..specs import CodecSpec
from ..tokens import CodecTokens
from .layer import State, StreamSetup
from .network import CodecNetwork
from .session import audio, signals

S = TypeVar("S", bound=State)


FEWEST_FRAMES = 16
"""Signals that end within fewer of the codec's frames do so among those of equal length: there may be less of them than is mirrored."""


def run_ragged(
    lengths: Sequence[int],
    tile: int,
    fewest: int,
    state: S,
    cut: Callable[[Sequence[int], int, int], list[Tensor]],
    step: Callable[[list[Tensor], S, bool], list[Tensor]],
) -> list[list[list[Tensor]]]:
    """Runs all signals to their ends.

    Args:
        lengths: Of each signal.
        tile: How much runs at a time.
        fewest: How much must be left of signals that end together.
        state: Of a new stream with a row a signal.
        cut: `(rows, start, end)` to the inputs of those signals in that range, rows first.
        step: Inputs, state and whether they end, to outputs, rows first.

    Returns:
        For each signal the outputs of its steps, each a list of tensors with one row; the last may go on after its end.
    """
    outputs: list[list[list[Tensor]]] = [[] for _ in lengths]
    active = list(range(len(lengths)))

    def run(rows: Sequence[int], of: S, start: int, end: int, last: bool) -> None:
        made = step(cut(rows, start, end), of, last)
        for place, row in enumerate(rows):
            outputs[row].append([tensor[place : place + 1] for tensor in made])

    start = 0
    while active:
        ending = [row for row in active if lengths[row] - start < tile]
        together = [row for row in ending if lengths[row] - start >= fewest]
        alike = [
            [row for row in ending if lengths[row] == length] for length in {lengths[row] for row in {*ending} - {*together}}
        ]
        for rows in filter(None, [together, *alike]):
            run(rows, state.take([active.index(row) for row in rows]), start, max(lengths[row] for row in rows), True)
        if ending:
            going = [row for row in active if row not in ending]
            state = state.take([active.index(row) for row in going])
            active = going
        if active:
            run(active, state, start, start + tile, False)
            start += tile
    return outputs


def encode_together(
    spec: CodecSpec, network: CodecNetwork, setup: StreamSetup, items: Sequence[Pcm], books: int, tile_frames: int
) -> list[list[NDArray[np.int32]]]:
    """The codes of each item, `(streams, frames / stride)` a codebook; `setup` has a row for every stream."""
    rows = [row for item in items for row in item.reshape(item.shape[0] // spec.channels, spec.channels, item.shape[1])]

    def cut(chosen: Sequence[int], start: int, end: int) -> list[Tensor]:
        tile = np.zeros((len(chosen), spec.channels, end - start), np.float32)
        for place, row in enumerate(chosen):
            piece = rows[row][:, start:end]
            tile[place, :, : piece.shape[1]] = piece
        return [signals(tile.reshape(len(chosen) * spec.channels, end - start), spec.channels, setup)]

    lengths = [row.shape[1] + spec.missing_samples(row.shape[1]) for row in rows]
    steps = run_ragged(
        lengths,
        tile_frames * spec.hop_length,
        FEWEST_FRAMES * spec.hop_length,
        network.encoder_state(_ending(setup, lengths), books),
        cut,
        lambda x, state, last: network.encode_step(x[0], state, last),
    )
    codes = [
        [
            torch.cat(book, 1)[:, : network.frames_encoded(length, True) // stride].cpu().numpy().astype(np.int32)
            for book, stride in zip(zip(*row, strict=True), spec.strides, strict=False)
        ]
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
        parts = [np.zeros((len(chosen), (end - start) // s), np.int32) for s in strides]
        for place, row in enumerate(chosen):
            for part, codes, s in zip(parts, rows[row], strides, strict=True):
                own = codes[start // s : end // s]
                part[place, : len(own)] = own
        return [torch.from_numpy(part).to(setup.device) for part in parts]

    lengths = [row[0].shape[0] * strides[0] for row in rows]
    steps = run_ragged(
        lengths,
        tile_frames,
        FEWEST_FRAMES,
        network.decoder_state(_ending(setup, lengths)),
        cut,
        lambda indices, state, last: [network.decode_step(indices, state, last)],
    )
    made = [audio(torch.cat([step[0] for step in row], 1)) for row in steps]
    together = _by_item(made, [item.streams for item in items])
    return [np.concatenate(mine)[:, : item.num_samples] for item, mine in zip(items, together, strict=True)]


def _ending(setup: StreamSetup, lengths: Sequence[int]) -> StreamSetup:
    """For signals of these lengths."""
    return setup if len(set(lengths)) == 1 else replace(setup, ends=tuple(lengths))


def _by_item(rows: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    """Consecutive rows, so many for each item."""
    ends = np.cumsum(counts)
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]
