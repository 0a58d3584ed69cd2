"""Sessions whose chunks are tensors: nothing passes through the host between a chunk and its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backend import CodecBackend
from ..nn.codec_network import CodecNetwork
from ..nn.pipeline import Step
from ..sessions import ends_on_failure
from ..tokens.tokens import CodecTokens
from .columns import Columns
from .sessions import TileBuffer, TileDecoderSession, TileEncoderSession, tile_items
from .tensor_checks import check_tensor_piece
from .tensor_tokens import TensorTokens
from .transfers import to_pcm_tensor


class TensorTileBuffer(TileBuffer):
    """`TileBuffer` of tensors, which are kept as they come.

    Args:
        empty: Tensor `(streams, 0)`.
    """

    def __init__(self, empty: Tensor, length: int) -> None:
        self._columns, self._length = Columns(empty), length

    def push(self, chunk: Any) -> Iterator[Any]:
        self.store(chunk)
        while self._columns.count >= self._length:
            yield self._columns.take(self._length)

    def store(self, chunk: Any) -> None:
        self._columns.push(chunk)

    def rest(self) -> Any:
        return self._columns.take(self._columns.count)


class TensorEncoderSession(TileEncoderSession):
    """`TileEncoderSession` that takes tensors from any device, and gives `TensorTokens` on the network's."""

    def _new_buffer(self, rows: int, length: int) -> TileBuffer:
        return TensorTileBuffer(torch.zeros(rows, 0, dtype=torch.float32, device=self._setup.device), length)

    def _check(self, pcm: object) -> Tensor:
        return check_tensor_piece(self._backend.spec, pcm, self._channels, self._setup.device)

    def _reader(self) -> Step:
        shape, dtype = (self._setup.batch, self._backend.spec.channels), self._setup.dtype
        return lambda tile, last: tile.reshape(*shape, tile.shape[1]).to(dtype).transpose(1, 2)

    @staticmethod
    def _writer() -> Step:
        return lambda indices, last: [index.to(torch.int64, copy=True) for index in indices]  # a graph overwrites its outputs

    @ends_on_failure
    def _run(self, tiles: Iterable[Any], end: int | None = None) -> TensorTokens:
        last, rows = end is not None, self._setup.batch
        empty = torch.zeros(rows, 0, dtype=torch.int64, device=self._setup.device)
        outputs: list[Sequence[Tensor]] = [[empty] * len(self._strides)]
        self._run_tiles(tile_items(tiles, self._count_tiles(last)[1], last), outputs.append)
        codes = tuple(torch.cat(parts, 1) for parts in zip(*outputs, strict=True))
        samples = self._count_output(codes[0].shape[1] * self._strides[0], last)
        return TensorTokens(self._backend.spec, codes, (samples,) * rows, streams=rows, weights=self._weights)


class TensorDecoderSession(TileDecoderSession):
    """`TileDecoderSession` that takes tokens from any device, and gives audio on the network's."""

    def __init__(self, backend: CodecBackend, network: CodecNetwork, *arguments: Any) -> None:
        super().__init__(backend, network, *arguments)
        self._quantizer, self._device = network.quantizer, torch.device(backend.device)

    def _accept(self, tokens: Any) -> tuple[CodecTokens, Sequence[Any]]:
        return self._tokens.accept_tensors(tokens, self._quantizer, self._device)

    def _new_buffer(self, rows: int, length: int) -> TileBuffer:
        return TensorTileBuffer(torch.zeros(rows, 0, dtype=torch.int64, device=self._setup.device), length)

    def _reader(self) -> Step:
        return lambda tile, last: tile

    @staticmethod
    def _writer() -> Step:
        return lambda y, last: to_pcm_tensor(y).clone()  # a graph overwrites its outputs

    @ends_on_failure
    def _run(self, tiles: Iterable[Sequence[Any]], last: bool) -> Tensor:
        shape = (self._setup.batch * self._backend.channels, 0)
        outputs = [torch.zeros(shape, dtype=torch.float32, device=self._setup.device)]
        self._run_tiles(tile_items(tiles, self._count_tiles(last)[1], last), outputs.append)
        return self._tokens.trim(torch.cat(outputs, 1))
