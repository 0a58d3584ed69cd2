"""Runs of whole signals through one part of a network, on the grid of tiles of sessions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..nn.layers.base import Layer, StreamSetup
from ..validation import Pcm
from .guard import inference_guard
from .sessions import TileRunner, pcm_reader, tile_items
from .transfers import to_pcm


def unchanged(y: Tensor) -> Tensor:
    """Return the output of a part as it is."""
    return y


class TiledRun(TileRunner):
    """One run of a signal through an encoder or a decoder.

    Args:
        part: The encoder or the decoder.
        setup: Setup with a row for each stream.
        channels: Channels of the part's input.
        convert: From the part's output to the result.
    """

    _is_native = True

    def __init__(self, part: Layer, setup: StreamSetup, channels: int, convert: Callable[[Tensor], Tensor] = unchanged) -> None:
        self._part, self._setup = part, setup
        with inference_guard():
            state = part.init_state(setup)
        steps = part.steps(state) if setup.device.type == "cpu" else [lambda x, last: part.step(x, state, last)]
        self._steps = [pcm_reader(channels, setup), *steps, lambda y, last: to_pcm(convert(y))]

    def run(self, signal: Pcm, tile: int, rows: int) -> Pcm:
        """Run a signal `(streams * channels, length)` in tiles of length `tile`; return an array with `rows` rows."""
        length = signal.shape[1]
        count = length // tile + 1  # the last may be empty, as in a session
        result = np.empty((rows, self._part.frames_out(length, True)), np.float32)
        start = 0

        def store(part: Pcm) -> None:
            nonlocal start
            result[:, start : start + part.shape[1]] = part
            start += part.shape[1]

        tiles = (signal[:, number * tile : (number + 1) * tile] for number in range(count))
        self._run_tiles(tile_items(tiles, count, True), store)
        return result
