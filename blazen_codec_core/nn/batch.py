"""Signals of different lengths side by side, each as if it were alone.

All start together and run tile by tile on the same grid as a single one; where a signal ends, its rows leave the state and
finish on their own. So no masking is needed, and no padding reaches any layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from .layer import State

S = TypeVar("S", bound=State)


def run_ragged(
    lengths: Sequence[int],
    tile: int,
    state: S,
    cut: Callable[[Sequence[int], int, int], list[Tensor]],
    step: Callable[[list[Tensor], S, bool], list[Tensor]],
) -> list[list[list[Tensor]]]:
    """Runs all signals to their ends.

    Args:
        lengths: Of each signal.
        tile: How much runs at a time.
        state: Of a new stream with a row a signal.
        cut: `(rows, start, end)` to the inputs of those signals in that range, rows first.
        step: Inputs, state and whether they end, to outputs, rows first.

    Returns:
        For each signal the outputs of its steps, each a list of tensors with one row.
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
        for length in sorted({lengths[row] for row in ending}):
            rows = [row for row in ending if lengths[row] == length]
            run(rows, state.take([active.index(row) for row in rows]), start, length, True)
        if ending:
            going = [row for row in active if row not in ending]
            state = state.take([active.index(row) for row in going])
            active = going
        if active:
            run(active, state, start, start + tile, False)
            start += tile
    return outputs
