"""Decoder pool of a `CodecNetwork`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from ...backend import CodecBackend
from ...nn.codec_network import CodecNetwork
from ...nn.layers.base import State
from ...pools import PoolSettings
from ...tokens.tokens import CodecTokens
from ...validation import Pcm
from ..columns import Columns
from ..sessions import StreamingDecoder
from ..token_stream import TensorTokenStream
from ..transfers import to_device, to_pcm, to_pcm_tensor
from .batched import BatchedPool, BatchedStream, PoolNetwork


class DecoderStream(BatchedStream):
    """Stream of a `BatchedDecoderPool`, of one signal of one stream of tokens."""

    _pool: BatchedDecoderPool

    def __init__(self, pool: BatchedDecoderPool) -> None:
        super().__init__(pool)
        self._tokens = TensorTokenStream(pool.backend)
        self._columns: list[Columns] = []
        self._strides: tuple[int, ...] = ()

    def _accept(self, value: Any) -> None:
        codes: Sequence[Any]
        if self._pool.settings.as_tensors:
            first, codes = self._tokens.accept_tensors(value, self._pool.network.quantizer, self._pool.setup.device)
        else:
            first, codes = self._tokens.accept(value), value.codes
        self._tokens.check_single()
        if not self._columns:
            self._strides, self._columns = first.strides, [Columns(code[:, :0]) for code in codes]
            self._pool.admit(self, self._pool.decoder_of(first))
        for columns, code in zip(self._columns, codes, strict=True):
            columns.push(code)

    @property
    def _frames(self) -> int:
        return self._columns[0].count * self._strides[0] if self._columns else 0

    @property
    def _queued_seconds(self) -> float:
        return self._frames / self._pool.backend.frame_rate

    @property
    def _has_tile(self) -> bool:
        tile = self._pool.settings.tile(self._tiles_run)
        return self._frames >= tile and all(
            columns.count >= tile // stride for columns, stride in zip(self._columns, self._strides, strict=True)
        )

    @property
    def kind_of_tile(self) -> Any:
        return self._pool.settings.tile(self._tiles_run), len(self._strides)

    def take_tile(self) -> list[Any]:
        tile = self._pool.settings.tile(self._tiles_run)
        return [columns.take(tile // stride) for columns, stride in zip(self._columns, self._strides, strict=True)]

    def take_rest(self) -> list[Any]:
        return [columns.take(columns.count) for columns in self._columns]

    def output(self, made: Any, last: bool) -> Any:
        return self._tokens.trim(
            made.clone() if isinstance(made, Tensor) else made
        )  # of the caller's own, outside of inference mode

    def _check_complete(self) -> None:
        self._tokens.check_complete()


class BatchedDecoderPool(BatchedPool):
    """Decoder pool of a `CodecNetwork`.

    Args:
        variant: Variant of the decoder by the first tokens; see `TorchCodecBackend.decoder_variant`.
        decoder_of: Decoder by the first tokens; streams of equal variants share one.
    """

    def __init__(
        self,
        backend: CodecBackend,
        settings: PoolSettings,
        network: PoolNetwork,
        variant: Callable[[CodecTokens], Hashable],
        decoder_of: Callable[[CodecNetwork, CodecTokens], StreamingDecoder],
    ) -> None:
        super().__init__(backend, settings, network)
        self._variant, self._decoder_of = variant, decoder_of
        self._decoders: WeakValueDictionary[Hashable, StreamingDecoder] = WeakValueDictionary()

    def decoder_of(self, tokens: CodecTokens) -> StreamingDecoder:
        """Decoder for a stream that begins with these tokens."""
        variant = self._variant(tokens)
        if (decoder := self._decoders.get(variant)) is None:
            decoder = self._decoders[variant] = self._decoder_of(self.network, tokens)
        return decoder

    def _new_stream(self) -> DecoderStream:
        return DecoderStream(self)

    def init_state(self, network: StreamingDecoder) -> State:
        return network.decoder_state(self.setup)

    def inputs_of(self, tiles: Sequence[list[Any]]) -> list[Tensor]:
        if self.settings.as_tensors:
            return [torch.cat(codes) for codes in zip(*tiles, strict=True)]
        return [to_device(codes, codes[0].shape[1], self.setup.device) for codes in zip(*tiles, strict=True)]

    def step_rows(self, network: StreamingDecoder, inputs: Sequence[Tensor], state: State, last: bool) -> list[Tensor]:
        return [network.decode_step(inputs, state, last)]

    def outputs_of(self, made: list[Tensor]) -> list[Any]:
        if self.settings.as_tensors:
            return list(torch.split(to_pcm_tensor(made[0]), self.backend.channels))
        return np.split(to_pcm(made[0]), len(made[0]))

    def _seconds(self, output: Pcm | Tensor) -> float:
        return float(output.shape[1] / self.backend.sample_rate)
