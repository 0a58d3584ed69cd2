"""Encoder pool of a `CodecNetwork`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...backend import CodecBackend
from ...checks import check_begun, check_piece
from ...nn.codec_network import CodecNetwork, EncoderState
from ...nn.layers.base import State, StreamSetup
from ...pools import PoolOptions
from ...tokens.tokens import CodecTokens
from ...validation import Pcm
from ..cuda_graphs import CaptureFn
from ..sessions import to_network_input
from ..transfers import codes_to_host
from .batched import BatchedPool, BatchedStream
from .columns import Columns


class EncoderStream(BatchedStream):
    """Stream of a `BatchedEncoderPool`, of a signal with the codec's channels."""

    def __init__(self, pool: BatchedEncoderPool) -> None:
        super().__init__(pool)
        self._encoders = pool
        self._columns = Columns(pool.backend.channels, np.float32)
        self._pushed = self._covered = 0

    def _accept(self, value: Pcm) -> None:
        array = check_piece(self._pool.backend.spec, value, self._pool.backend.channels)
        if not self._pushed and array.shape[1]:
            self.batched.admit(self, self.batched.network)
        self._pushed += array.shape[1]
        self._columns.push(array.copy())

    @property
    def _tile(self) -> int:
        return self._pool.options.tile(self._tiles_run) * self._pool.backend.spec.hop_length

    @property
    def _queued_seconds(self) -> float:
        return self._columns.count / self._pool.backend.sample_rate

    @property
    def _has_tile(self) -> bool:
        return self._columns.count >= self._tile

    @property
    def kind_of_tile(self) -> Any:
        return self._tile

    def take_tile(self) -> Pcm:
        return self._columns.take(self._tile)

    def take_rest(self) -> Pcm:
        rest = self._columns.take(self._columns.count)
        return np.pad(rest, ((0, 0), (0, self._pool.backend.spec.missing_samples(self._pushed))))

    def output(self, made: list[NDArray[np.int32]], last: bool) -> CodecTokens:
        spec = self._pool.backend.spec
        frames = made[0].shape[1] * spec.strides[0]
        samples = self._pushed - self._covered if last else frames * spec.hop_length
        self._covered += samples
        return CodecTokens.from_codes(spec, made, num_samples=samples, weights=self._encoders.label)

    def _check_complete(self) -> None:
        check_begun(self._pushed)


class BatchedEncoderPool(BatchedPool):
    """Encoder pool of a `CodecNetwork`.

    Args:
        num_codebooks: Number of codebooks of all streams.
        label: Label of the weights.
    """

    def __init__(
        self,
        backend: CodecBackend,
        options: PoolOptions,
        network: CodecNetwork,
        setup: Callable[[int], StreamSetup],
        num_codebooks: int,
        label: str,
        capture: CaptureFn | None,
    ) -> None:
        super().__init__(backend, options, network, setup, capture)
        self._num_codebooks, self.label = num_codebooks, label

    def _new_stream(self) -> EncoderStream:
        return EncoderStream(self)

    def init_state(self, network: CodecNetwork) -> State:
        return network.encoder_state(self.setup, self._num_codebooks)

    def inputs_of(self, tiles: Sequence[Pcm]) -> list[Tensor]:
        return [to_network_input(tiles, tiles[0].shape[1], self.backend.channels, self.setup)]

    def step_rows(self, network: CodecNetwork, inputs: Sequence[Tensor], state: State, last: bool) -> list[Tensor]:
        return network.encode_step(inputs[0], cast(EncoderState, state), last)

    def outputs_of(self, made: list[Tensor]) -> list[list[NDArray[np.int32]]]:
        codes = codes_to_host(made)
        return [[code[row : row + 1].copy() for code in codes] for row in range(len(made[0]))]

    def _seconds(self, output: CodecTokens) -> float:
        return output.seconds
