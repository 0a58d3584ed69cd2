"""Signals side by side, each with the output that it has by itself.

Each has its own state and its own tiles. Layers that benefit from it run the tiles of all signals together, and so read their
weights once for all of them. Other layers run one tile after the other, so that its data stays in cache. Where one signal ends,
the next one begins.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import State, StreamSetup
from ..nn.pipeline import run_parallel
from ..specs import CodecSpec
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .batching import joined
from .guard import inference_guard, network_guard
from .sessions import to_network_input
from .transfers import codes_to_host, to_pcm

R = TypeVar("R")
SIGNALS = 8
"""Most signals side by side in one thread. More are no faster: products with eight rows run at the speed of a GEMM."""


@dataclass
class _Signal:
    """Signal that has begun, with the outputs of its tiles so far.

    Attributes:
        index: Number of the signal.
        start: Length of the part that has run.
    """

    index: int
    state: State
    start: int = 0
    has_ended: bool = False
    outputs: list[Any] = field(default_factory=list)


class SideBySide(ABC, Generic[R]):
    """Run of several signals, with a result for each.

    Args:
        setup: From a number of streams to the setup of a state.
        lengths: Length of each signal.
        tile: Length of a tile.
    """

    def __init__(
        self, spec: CodecSpec, network: CodecNetwork, setup: Callable[[int], StreamSetup], lengths: Sequence[int], tile: int
    ) -> None:
        self._spec, self._network, self._setup = spec, network, setup
        self._lengths, self._tile, self._device = lengths, tile, setup(1).device

    def run(self, threads: int) -> list[R]:
        """Results of all signals; the longest begin first, so that all threads end at about the same time."""
        order = sorted(range(len(self._lengths)), key=self._lengths.__getitem__, reverse=True)
        begun = threads * min(SIGNALS, math.ceil(len(order) / threads))
        waiting, results = deque(order[begun:]), dict[int, R]()

        def run_all(first: Sequence[int]) -> None:
            try:
                self._run_all(first, waiting, results)
            except BaseException:
                waiting.clear()  # nothing else begins
                raise

        run_parallel(run_all, [order[n:begun:threads] for n in range(threads)], threads)
        return [results[index] for index in range(len(order))]

    def _run_all(self, first: Sequence[int], waiting: deque[int], results: dict[int, R]) -> None:
        """Run signals side by side; for each that ends begin one that waits, until none is left."""
        active = [self._begin(index) for index in first]
        while active:
            self._run_tiles(active)
            for signal in [signal for signal in active if signal.has_ended]:
                active.remove(signal)
                results[signal.index] = self._finish(signal.index, signal.outputs)
                try:
                    active.append(self._begin(waiting.popleft()))
                except IndexError:  # none waits; another thread may have begun the last one
                    continue

    def _begin(self, index: int) -> _Signal:
        with inference_guard():
            return _Signal(index, self._new_state(index))

    def _run_tiles(self, active: Sequence[_Signal]) -> None:
        """Run the next tile of each signal."""
        ends = [min(self._lengths[signal.index], signal.start + self._tile) for signal in active]
        lasts = [end - signal.start < self._tile for signal, end in zip(active, ends, strict=True)]
        with network_guard(self._device):
            inputs = [self._read(signal.index, signal.start, end) for signal, end in zip(active, ends, strict=True)]
            made = self._step(inputs, [signal.state for signal in active], lasts)
        for signal, end, last, output in zip(active, ends, lasts, made, strict=True):
            signal.start, signal.has_ended = end, last
            signal.outputs.append(output)

    @abstractmethod
    def _new_state(self, index: int) -> State:
        """State of a new stream for a signal."""

    @abstractmethod
    def _read(self, index: int, start: int, end: int) -> Any:
        """Input of the network for a tile of a signal."""

    @abstractmethod
    def _step(self, inputs: Sequence[Any], states: Sequence[Any], lasts: Sequence[bool]) -> Sequence[Any]:
        """Outputs of the next tile of each signal, on the host."""

    @abstractmethod
    def _finish(self, index: int, outputs: Sequence[Any]) -> R:
        """Result of a signal, from the outputs of its tiles."""


class EncodeSideBySide(SideBySide[CodecTokens]):
    """Encoding of items `(channels, samples)`.

    Args:
        num_codebooks: Number of codebooks used.
        tile_frames: Frames of a tile.
        weights: Label of the network's weights, for the tokens.
    """

    def __init__(
        self,
        spec: CodecSpec,
        network: CodecNetwork,
        setup: Callable[[int], StreamSetup],
        items: Sequence[Pcm],
        *,
        num_codebooks: int,
        tile_frames: int,
        weights: str,
    ) -> None:
        lengths = [item.shape[1] + spec.missing_samples(item.shape[1]) for item in items]
        super().__init__(spec, network, setup, lengths, tile_frames * spec.hop_length)
        self._items, self._num_codebooks, self._weights = items, num_codebooks, weights

    def _setup_of(self, index: int) -> StreamSetup:
        return self._setup(len(self._items[index]) // self._spec.channels)

    def _new_state(self, index: int) -> State:
        return self._network.encoder_state(self._setup_of(index), self._num_codebooks)

    def _read(self, index: int, start: int, end: int) -> Tensor:
        return to_network_input([self._items[index][:, start:end]], end - start, self._spec.channels, self._setup_of(index))

    def _step(self, inputs: Sequence[Any], states: Sequence[Any], lasts: Sequence[bool]) -> Sequence[Any]:
        return [codes_to_host(indices) for indices in self._network.encode_many(inputs, states, lasts)]

    def _finish(self, index: int, outputs: Sequence[list[NDArray[np.int32]]]) -> CodecTokens:
        codes = [joined(parts) for parts in zip(*outputs, strict=True)]
        samples = self._items[index].shape[1]
        return CodecTokens.from_codes(self._spec, codes, num_samples=samples, weights=self._weights)


class DecodeSideBySide(SideBySide[Pcm]):
    """Decoding of items to `(channels, samples)` each.

    Args:
        tile_frames: Frames of a tile.
    """

    def __init__(
        self,
        spec: CodecSpec,
        network: CodecNetwork,
        setup: Callable[[int], StreamSetup],
        items: Sequence[CodecTokens],
        *,
        tile_frames: int,
    ) -> None:
        super().__init__(spec, network, setup, [item.frames for item in items], tile_frames)
        self._items = items

    def _new_state(self, index: int) -> State:
        return self._network.decoder_state(self._setup(self._items[index].streams))

    def _read(self, index: int, start: int, end: int) -> list[Tensor]:
        item = self._items[index]
        parts = (code[:, start // stride : end // stride] for code, stride in zip(item.codes, item.strides, strict=True))
        return [torch.from_numpy(part.astype(np.int32)).to(self._device) for part in parts]

    def _step(self, inputs: Sequence[Any], states: Sequence[Any], lasts: Sequence[bool]) -> Sequence[Any]:
        return [to_pcm(y) for y in self._network.decode_many(inputs, states, lasts)]

    def _finish(self, index: int, outputs: Sequence[Pcm]) -> Pcm:
        return np.concatenate(outputs, axis=1)[:, : self._items[index].num_samples]
