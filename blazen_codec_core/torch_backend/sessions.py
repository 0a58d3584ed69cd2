"""Streaming sessions: the network runs on a fixed grid of tiles, whatever chunks are pushed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import cancellation
from ..backend import CodecBackend
from ..checks import check_begun, check_piece
from ..forks import is_fork_waiting
from ..nn.codec_network import CodecNetwork, EncoderState
from ..nn.layers.base import State, StreamSetup
from ..nn.pipeline import Item, Join, Split, Step, as_stage, run_pipeline, run_steps
from ..sessions import DecoderSession, EncoderSession, ends_on_failure
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .batching import joined
from .columns import pad_columns
from .cuda_graphs import GraphedNetwork
from .guard import helper_guard, inference_guard, network_guard
from .token_stream import TensorTokenStream
from .transfers import codes_to_host, to_device, to_pcm

T = TypeVar("T")


class TileBuffer:
    """Buffer that re-chunks a signal `(streams, time)` into tiles of `length`."""

    def __init__(self, streams: int, length: int, dtype: np.dtype[Any]) -> None:
        self._buffer = np.zeros((streams, length), dtype)
        self.filled = 0

    def push(self, chunk: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Yield every tile that `chunk` completes. The rest is stored once all have been taken."""
        start, length = 0, self._buffer.shape[1]
        while chunk.shape[1] - start >= length - self.filled:
            end = start + length - self.filled
            self.store(chunk[:, start:end])
            start, self.filled = end, 0
            yield self._buffer.copy()
        self.store(chunk[:, start:])

    def store(self, chunk: NDArray[Any]) -> None:
        """Store a chunk that does not complete the tile."""
        self._buffer[:, self.filled : self.filled + chunk.shape[1]] = chunk
        self.filled += chunk.shape[1]

    def rest(self) -> NDArray[Any]:
        """Copy of the last, incomplete tile."""
        return self._buffer[:, : self.filled].copy()


def max_latency(tile: int, covered: Callable[[int], int], step: int) -> int:
    """Maximum latency: the most input that has been pushed and that the output does not cover yet.

    Args:
        tile: Size of a tile, in units of the input, as are all amounts.
        covered: From the input that has run to the input that the output covers.
        step: Smallest chunk.
    """
    return max((n + 1) * tile - step - covered(n * tile) for n in range(64))


def amount_to_first_output(tile: int, made: Callable[[int], int]) -> int:
    """Amount of input that is in when the first output comes out.

    Args:
        tile: Size of a tile.
        made: From the input that has run to the amount of output.
    """
    return next(n * tile for n in itertools.count(1) if made(n * tile))


def to_network_input(pcm: Sequence[Pcm], length: int, channels: int, setup: StreamSetup) -> Tensor:
    """Stack audio `(streams * channels, samples)` into `(streams, length, channels)`, zero-padded to `length`, on the device."""
    x = to_device(pcm, length, setup.device)
    return x.reshape(x.shape[0] // channels, channels, length).to(setup.dtype).transpose(1, 2)


class TileRunner:
    """Runner of a network in steps on tiles.

    Attributes:
        _steps: From a tile to outputs on the host; see `nn.pipeline.Step`.
        _is_native: See `network_guard`.
    """

    _setup: StreamSetup
    _steps: list[Step | Split | Join]
    _is_native: bool

    def _run_tile(self, tile: Any, last: bool) -> list[Any]:
        """Outputs for one tile."""
        with network_guard(self._setup.device, is_native=self._is_native):
            return [output for output, _ in run_steps(self._steps, tile, last)]

    def _run_tiles(self, tiles: Iterable[Item], store: Callable[[Any], None]) -> None:
        """Run tiles, several at once on a CPU. A fork that waits goes first, between two tiles."""

        def store_item(item: Item) -> tuple[()]:
            store(item[0])
            return ()

        stages, rest = [*map(as_stage, self._steps), store_item], iter(tiles)
        for tile in rest:
            with network_guard(self._setup.device, is_native=self._is_native) as threads:
                run_pipeline(stages, _until_fork(tile, rest), threads, helper_guard)


def tile_items(tiles: Iterable[T], count: int, last: bool) -> Iterator[tuple[T, bool]]:
    """Items of a pipeline for `count` tiles; the signal ends with the last of them if `last` is true."""
    return zip(tiles, (last and number == count for number in range(1, count + 1)), strict=True)


def _until_fork(tile: T, rest: Iterator[T]) -> Iterator[T]:
    """Yield a tile and the rest, or fewer if a fork waits."""
    yield tile
    for following in rest:
        cancellation.check()
        yield following
        if is_fork_waiting():
            return


def is_native(network: object) -> bool:
    """Tell whether a network is of this package's layers; see `network_guard`."""
    return isinstance(network, CodecNetwork | GraphedNetwork)


def drop_graphs(network: object) -> None:
    """Free the graphs of a network that records them."""
    if isinstance(network, GraphedNetwork):
        network.reset()


def runs_in_steps(network: object, device: torch.device, *methods: str) -> bool:
    """Tell whether to run a network in the steps of `CodecNetwork`: on a CPU, unless it overrides these methods."""
    return device.type == "cpu" and isinstance(network, CodecNetwork) and inherits(network, *methods)


def inherits(network: CodecNetwork, *methods: str) -> bool:
    """Tell whether a network overrides none of these methods."""
    return all(getattr(getattr(network, name), "__func__", None) is getattr(CodecNetwork, name) for name in methods)


def pcm_reader(channels: int, setup: StreamSetup) -> Step:
    """Step from a tile of audio to the network's input. It refers to no session, which would then be freed late."""
    return lambda tile, last: to_network_input([tile], tile.shape[1], channels, setup)


def _codes_reader(device: torch.device) -> Step:
    """Step from a tile of codes to tensors on a device; see `pcm_reader`."""
    return lambda tile, last: [torch.from_numpy(codes).to(device) for codes in tile]


class TileEncoderSession(TileRunner, EncoderSession):
    """Encoder session that runs the encoder and the quantizer tile by tile.

    Args:
        setup: Setup with a row for each stream.
        channels: Channels of the audio.
        num_codebooks: Number of codebooks used.
        tile_frames: Frames of a tile.
        weights: Label of the network's weights, for the tokens.
    """

    def __init__(
        self,
        backend: CodecBackend,
        network: CodecNetwork,
        setup: StreamSetup,
        *,
        channels: int,
        num_codebooks: int,
        tile_frames: int,
        weights: str,
    ) -> None:
        super().__init__()
        self._backend, self._network, self._setup = backend, network, setup
        self._is_native = is_native(network)
        self._channels, self._tile, self._weights = channels, tile_frames * backend.spec.hop_length, weights
        self._strides = backend.spec.strides[:num_codebooks]
        self._tiles = self._new_buffer(channels, self._tile)
        self._samples_pushed = self._tiles_run = self._frames = self._samples_covered = 0
        with inference_guard():
            state = network.encoder_state(setup, num_codebooks)
        self._steps = [self._reader(), *self._network_steps(state), self._writer()]
        self._no_tokens = self._run([])

    def _new_buffer(self, rows: int, length: int) -> TileBuffer:
        return TileBuffer(rows, length, np.dtype(np.float32))

    def _reader(self) -> Step:
        return pcm_reader(self._backend.spec.channels, self._setup)

    @staticmethod
    def _writer() -> Step:
        return lambda indices, last: codes_to_host(indices)

    def _network_steps(self, state: EncoderState) -> list[Step | Split | Join]:
        network = self._network
        if runs_in_steps(network, self._setup.device, "encode_step", "encode_many"):
            return network.encoder_steps(state)
        return [lambda x, last: network.encode_step(x, state, last)]

    def _free(self) -> None:
        self._steps = []  # which have the state
        drop_graphs(self._network)

    def _covered_by(self, samples: int) -> int:
        return self._network.frames_encoded(samples, False) * self._backend.spec.hop_length

    @property
    def latency_samples(self) -> int:
        return max_latency(self._tile, self._covered_by, 1)

    @property
    def first_samples(self) -> int:
        return amount_to_first_output(self._tile, self._covered_by)

    def _push(self, chunk: object) -> Any:
        array = self._accept(chunk)
        if self._samples_pushed // self._tile == self._tiles_run:
            self._tiles.store(array)
            return self._no_tokens
        return self._run(self._tiles.push(array))

    def _push_last(self, chunk: object) -> Any:
        return self._run_to_end(self._tiles.push(self._accept(chunk)))

    def _finish(self) -> Any:
        return self._run_to_end([])

    def _check(self, pcm: object) -> Any:
        """Audio `(channels, samples)` of a chunk."""
        return check_piece(self._backend.spec, pcm, self._channels)

    def _accept(self, pcm: object) -> Any:
        """Check and count the next audio."""
        array = self._check(pcm)
        self._samples_pushed += array.shape[1]
        return array

    def _run_to_end(self, tiles: Iterable[NDArray[Any]]) -> Any:
        """Run tiles and then the rest, with which the signal ends."""
        check_begun(self._samples_pushed)
        padding = self._backend.spec.missing_samples(self._samples_pushed)

        def to_end() -> Iterator[NDArray[Any]]:
            yield from tiles
            yield pad_columns(self._tiles.rest(), padding)

        return self._run(to_end(), self._samples_pushed + padding)

    @ends_on_failure
    def _run(self, tiles: Iterable[Any], end: int | None = None) -> Any:
        """Run the next tiles: one, or several into arrays of the final size.

        Small arrays that outlive the large ones between them would fragment the heap, until an hour of audio takes gigabytes.

        Args:
            end: Length of the padded signal, if the last tile ends it.
        """
        strides, last = self._strides, end is not None
        ready, count = self._count_tiles(last)
        if count == 1:
            [tile] = tiles
            codes = [joined(parts) for parts in zip(*self._run_tile(tile, last), strict=True)]
            frames = codes[0].shape[1] * strides[0]
        else:
            frames = self._network.frames_encoded(ready * self._tile if end is None else end, last) - self._frames
            codes = [np.empty((self._setup.batch, frames // stride), np.int32) for stride in strides]
            start = 0

            def store(indices: list[NDArray[np.int32]]) -> None:
                nonlocal start
                stop = start + indices[0].shape[1] * strides[0]
                for code, index, stride in zip(codes, indices, strides, strict=True):
                    code[:, start // stride : stop // stride] = index
                start = stop

            self._run_tiles(tile_items(tiles, count, last), store)
        samples = self._count_output(frames, last)
        return CodecTokens.from_codes(self._backend.spec, codes, num_samples=samples, weights=self._weights)

    def _count_tiles(self, last: bool) -> tuple[int, int]:
        """Number of whole tiles of the signal so far, and of the tiles to run now."""
        ready = self._samples_pushed // self._tile
        count, self._tiles_run = ready - self._tiles_run + last, ready
        return ready, count

    def _count_output(self, frames: int, last: bool) -> int:
        """Count frames that come out; return the samples that they cover."""
        self._frames += frames
        samples = self._samples_pushed - self._samples_covered if last else frames * self._backend.spec.hop_length
        self._samples_covered += samples
        return samples


class StreamingDecoder(Protocol):
    """Methods of a network that a decoder session calls; see `CodecNetwork`."""

    def decoder_state(self, setup: StreamSetup) -> State: ...
    def decode_step(self, indices: Sequence[Tensor], state: Any, last: bool) -> Tensor: ...
    def samples_decoded(self, frames: int, last: bool) -> int: ...


class TileDecoderSession(TileRunner, DecoderSession):
    """Decoder session that runs the decoder tile by tile.

    Args:
        network: Network, which decodes tokens without a variant.
        decoder_of: Chooses the decoder by the first tokens; see `TorchCodecBackend.decoder_of`.
        setup: Makes the setup for a number of streams.
        tile_frames: Frames of a tile.
    """

    def __init__(
        self,
        backend: CodecBackend,
        network: CodecNetwork,
        decoder_of: Callable[[CodecNetwork, CodecTokens], StreamingDecoder],
        setup: Callable[[int], StreamSetup],
        tile_frames: int,
    ) -> None:
        super().__init__()
        self._backend, self._tokens = backend, TensorTokenStream(backend)
        self._network: StreamingDecoder = network
        self._decoder_of = partial(decoder_of, network)
        self._is_native = is_native(network)
        self._setup_of, self._tile = setup, tile_frames
        self._tiles_run = self._decoded_samples = 0

    def _free(self) -> None:
        self._steps = []  # which have the state
        drop_graphs(self._network)

    def _samples_decoded(self, frames: int) -> int:
        return self._network.samples_decoded(frames, False)

    @property
    def latency_samples(self) -> int:
        spec = self._backend.spec
        hop = spec.hop_length
        return max_latency(self._tile * hop, lambda samples: self._samples_decoded(samples // hop), spec.block_frames * hop)

    @property
    def first_frames(self) -> int:
        return amount_to_first_output(self._tile, self._samples_decoded)

    def _push(self, chunk: CodecTokens) -> Any:
        return self._run(self._read_tiles(chunk), last=False)

    def _push_last(self, chunk: CodecTokens) -> Any:
        return self._run_to_end(self._read_tiles(chunk))

    def _finish(self) -> Any:
        return self._run_to_end([])

    def _read_tiles(self, tokens: CodecTokens) -> Iterable[Sequence[NDArray[Any]]]:
        """Accept the next tokens; return the tiles that they complete."""
        has_begun = self._tokens.first is not None
        first, codes = self._accept(tokens)
        if not has_begun:
            self._open_stream(first)
        return zip(*(buffer.push(code) for buffer, code in zip(self._tiles, codes, strict=True)), strict=True)

    def _accept(self, tokens: Any) -> tuple[CodecTokens, Sequence[Any]]:
        """Check and count the next tokens; return the first ones, and the codes of these."""
        return self._tokens.accept(tokens), tokens.codes

    def _new_buffer(self, rows: int, length: int) -> TileBuffer:
        return TileBuffer(rows, length, np.dtype(np.int32))

    def _reader(self) -> Step:
        return _codes_reader(self._setup.device)

    @staticmethod
    def _writer() -> Step:
        return lambda y, last: to_pcm(y)

    def _run_to_end(self, tiles: Iterable[Sequence[NDArray[Any]]]) -> Any:
        """Run tiles and then the rest, with which the signal ends."""
        self._tokens.check_complete()

        def to_end() -> Iterator[Sequence[NDArray[Any]]]:
            yield from tiles
            yield [buffer.rest() for buffer in self._tiles]

        return self._run(to_end(), last=True)

    @ends_on_failure
    def _open_stream(self, tokens: CodecTokens) -> None:
        """Open the stream for tokens like these, the first ones."""
        self._network = self._decoder_of(tokens)
        self._setup = self._setup_of(tokens.streams)
        self._tiles = [self._new_buffer(tokens.streams, self._tile // stride) for stride in tokens.strides]
        with inference_guard():
            state = self._network.decoder_state(self._setup)
        self._steps = [self._reader(), *self._network_steps(state), self._writer()]

    def _network_steps(self, state: Any) -> list[Step | Split | Join]:
        network = self._network
        if runs_in_steps(network, self._setup.device, "decode_step", "decode_many"):
            return cast(CodecNetwork, network).decoder_steps(state)
        return [lambda indices, last: network.decode_step(indices, state, last)]

    @ends_on_failure
    def _run(self, tiles: Iterable[Sequence[Any]], last: bool) -> Any:
        """Run the next tiles: one, or several into an array of the final size."""
        ready, count = self._count_tiles(last)
        if count == 1:
            [tile] = tiles
            pcm = joined(self._run_tile(tile, last)).copy()
        else:
            frames = self._tokens.frames if last else ready * self._tile
            samples = self._network.samples_decoded(frames, last) - self._decoded_samples
            pcm = np.empty((self._setup.batch * self._backend.channels, samples), np.float32)
            start = 0

            def store(part: Pcm) -> None:
                nonlocal start
                pcm[:, start : start + part.shape[1]] = part
                start += part.shape[1]

            self._run_tiles(tile_items(tiles, count, last), store)
        self._decoded_samples += pcm.shape[1]
        return self._tokens.trim(pcm)

    def _count_tiles(self, last: bool) -> tuple[int, int]:
        """Number of whole tiles of the signal so far, and of the tiles to run now."""
        ready = self._tokens.frames // self._tile
        count, self._tiles_run = ready - self._tiles_run + last, ready
        return ready, count
