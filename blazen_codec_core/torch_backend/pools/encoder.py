"""Encoder pool of a `CodecNetwork`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ...backend import CodecBackend
from ...checks import check_begun, check_piece
from ...nn.codec_network import CodecNetwork, EncoderState
from ...nn.layers.base import State
from ...pools import PoolSettings
from ...tokens.tokens import CodecTokens
from ..columns import Columns, pad_columns
from ..sessions import to_network_input
from ..tensor_checks import check_tensor_piece
from ..tensor_tokens import TensorTokens
from ..transfers import codes_to_host
from .batched import BatchedPool, BatchedStream, PoolNetwork


class EncoderStream(BatchedStream):
    """Stream of a `BatchedEncoderPool`, of a signal with the codec's channels."""

    _pool: BatchedEncoderPool

    def __init__(self, pool: BatchedEncoderPool) -> None:
        super().__init__(pool)
        empty = np.zeros((pool.backend.channels, 0), np.float32)
        self._columns = Columns(self._own(empty))
        self._pushed = self._covered = 0

    def _own(self, value: Any) -> Any:
        """Check audio; return a copy of it, on the device if the pool gives tensors."""
        spec, channels = self._pool.backend.spec, self._pool.backend.channels
        if self._pool.settings.as_tensors:
            return check_tensor_piece(spec, value, channels, self._pool.setup.device)
        return check_piece(spec, value, channels).copy()

    def _accept(self, value: Any) -> None:
        audio = self._own(value)
        if not self._pushed and audio.shape[1]:
            self._pool.admit(self, self._pool.network)
        self._pushed += audio.shape[1]
        self._columns.push(audio)

    @property
    def _tile(self) -> int:
        return self._pool.settings.tile(self._tiles_run) * self._pool.backend.spec.hop_length

    @property
    def _queued_seconds(self) -> float:
        return self._columns.count / self._pool.backend.sample_rate

    @property
    def _has_tile(self) -> bool:
        return self._columns.count >= self._tile

    @property
    def kind_of_tile(self) -> Any:
        return self._tile

    def take_tile(self) -> Any:
        return self._columns.take(self._tile)

    def take_rest(self) -> Any:
        return pad_columns(self._columns.take(self._columns.count), self._pool.backend.spec.missing_samples(self._pushed))

    def output(self, made: list[Any], last: bool) -> CodecTokens | TensorTokens:
        spec, label = self._pool.backend.spec, self._pool.label
        frames = made[0].shape[1] * spec.strides[0]
        samples = self._pushed - self._covered if last else frames * spec.hop_length
        self._covered += samples
        if self._pool.settings.as_tensors:
            return TensorTokens(spec, tuple(code.clone() for code in made), (samples,), weights=label)
        return CodecTokens.from_codes(spec, made, num_samples=samples, weights=label)

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
        settings: PoolSettings,
        network: PoolNetwork,
        num_codebooks: int,
        label: str,
    ) -> None:
        super().__init__(backend, settings, network)
        self._num_codebooks, self.label = num_codebooks, label

    def _new_stream(self) -> EncoderStream:
        return EncoderStream(self)

    def init_state(self, network: CodecNetwork) -> State:
        return network.encoder_state(self.setup, self._num_codebooks)

    def inputs_of(self, tiles: Sequence[Any]) -> list[Tensor]:
        if self.settings.as_tensors:
            return [torch.stack(list(tiles)).to(self.setup.dtype).transpose(1, 2)]
        return [to_network_input(tiles, tiles[0].shape[1], self.backend.channels, self.setup)]

    def step_rows(self, network: CodecNetwork, inputs: Sequence[Tensor], state: State, last: bool) -> list[Tensor]:
        return network.encode_step(inputs[0], cast(EncoderState, state), last)

    def outputs_of(self, made: list[Tensor]) -> list[list[Any]]:
        if self.settings.as_tensors:
            return [[code[row : row + 1].long() for code in made] for row in range(len(made[0]))]
        codes = codes_to_host(made)
        return [[code[row : row + 1].copy() for code in codes] for row in range(len(made[0]))]

    def _seconds(self, output: CodecTokens | TensorTokens) -> float:
        return output.seconds
