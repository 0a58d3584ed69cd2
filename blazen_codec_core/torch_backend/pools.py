"""Pools whose streams run as the rows of a batch.

The states of streams that can run together are one state, with a row for each. States differ until a stream has settled: the
first tiles have nothing behind them. So streams are kept in groups of equal signatures. Those that have a tile ready are taken
out, run, and put back. The last tile of a stream runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, ClassVar, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from ..backend import CodecBackend
from ..checks import check_piece
from ..errors import CodecError, InferenceError, InvalidInput, reason
from ..nn.codec_network import CodecNetwork, EncoderState
from ..nn.kernels.dispatch import is_batch_exact
from ..nn.layers.base import State, StreamSetup
from ..nn.pipeline import run_parallel
from ..pools import Pool, PoolOptions, PoolStream
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .guard import helper_guard, inference_guard, network_guard
from .sessions import StreamingDecoder, to_network_input, to_pcm
from .token_stream import TokenStream
from .transfers import codes_to_host, to_device

Result = tuple[PoolStream[Any, Any], Any]


def network_failure(error: Exception) -> InferenceError:
    """Error for the streams of a batch in which the network failed."""
    return InferenceError(f"the network failed: {reason(error)}")


class Columns:
    """Queue of arrays `(rows, columns)`, from which any number of columns is taken."""

    def __init__(self, rows: int, dtype: type[np.generic]) -> None:
        self._parts: list[NDArray[Any]] = []
        self._empty = np.zeros((rows, 0), dtype)
        self.count = 0

    def push(self, array: NDArray[Any]) -> None:
        if array.shape[1]:
            self._parts.append(array)
            self.count += array.shape[1]

    def take(self, count: int) -> NDArray[Any]:
        """Take the first `count` columns, which must be there."""
        if not count:
            return self._empty
        taken: list[NDArray[Any]] = []
        self.count -= count
        while count:
            part = self._parts[0]
            if part.shape[1] > count:
                taken.append(part[:, :count])
                self._parts[0], count = part[:, count:], 0
            else:
                taken.append(self._parts.pop(0))
                count -= part.shape[1]
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)


class Group:
    """Streams whose states are the rows of one state."""

    def __init__(self) -> None:
        self.streams: list[BatchedStream] = []
        self.state: State | None = None

    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        self.state = state if self.state is None else type(state).join([self.state, state])
        self.streams += streams

    def take(self, streams: Sequence[BatchedStream]) -> State:
        """Remove streams; return the state of these, in their order."""
        assert self.state is not None
        rows = [self.streams.index(stream) for stream in streams]
        if rows == list(range(len(self.streams))):
            state, self.state, self.streams = self.state, None, []
            return state
        state, left = self.state.take(rows), [row for row in range(len(self.streams)) if row not in set(rows)]
        self.state = self.state.take(left) if left else None
        self.streams = [self.streams[row] for row in left]
        return state


class BatchedStream(PoolStream[Any, Any]):
    """A stream of a `BatchedPool`.

    Attributes:
        network: What runs the stream; streams of one group have the same.
        group: Group whose state has the stream's row; `None` before the first push.
    """

    network: Any

    def __init__(self, pool: BatchedPool) -> None:
        super().__init__(pool)
        self.batched, self.group = pool, cast("Group | None", None)

    @property
    def kind_of_tile(self) -> Any:
        """Shape of the next tile; tiles of equal shapes run together."""
        raise NotImplementedError

    def take_tile(self) -> Any:
        """Input of the next tile."""
        raise NotImplementedError

    def take_rest(self) -> Any:
        """Input of the last tile."""
        raise NotImplementedError

    def output(self, made: Any, last: bool) -> Any:
        """Convert the outputs of a tile to what the caller gets."""
        raise NotImplementedError


class BatchedPool(Pool[Any, Any]):
    """Pool whose ready streams run as batches.

    Args:
        network: Prepared network.
        setup: Makes the setup of a number of rows.
    """

    ROWS: ClassVar[int] = 16
    """Most rows of a batch on a CPU, whose data stays in the cache."""

    def __init__(
        self, backend: CodecBackend, options: PoolOptions, network: CodecNetwork, setup: Callable[[int], StreamSetup]
    ) -> None:
        super().__init__(backend, options)
        self.network, self.setup = network, setup(1)
        self._groups: dict[Any, Group] = {}
        self._max_rows = options.max_streams
        if self.setup.device.type == "cpu":
            self._max_rows = self.ROWS if is_batch_exact(self.setup.device) else 1

    def init_state(self, network: Any) -> State:
        """State of a new stream."""
        raise NotImplementedError

    def step_rows(self, network: Any, tiles: Sequence[Any], state: State, last: bool) -> list[Any]:
        """Run a tile of each row; return the outputs of each on the host."""
        raise NotImplementedError

    def admit(self, stream: BatchedStream, network: Any) -> None:
        """Give a stream its state."""
        stream.network = network
        with inference_guard():
            self._put(self.init_state(network), [stream])

    def _forget(self, stream: PoolStream[Any, Any]) -> None:
        assert isinstance(stream, BatchedStream)
        if stream.group is not None and stream in stream.group.streams:
            with torch.inference_mode():
                stream.group.take([stream])
        stream.group = None

    def _put(self, state: State, streams: Sequence[BatchedStream]) -> None:
        """Put streams into the group of their network and their state's signature."""
        group = self._groups.setdefault((id(streams[0].network), state.signature()), Group())
        group.add(state, streams)
        for stream in streams:
            stream.group = group
        if not self._bytes_per_stream:
            self._bytes_per_stream = sum(tensor.nbytes for tensor in state.tensors()) // len(streams)

    def _run(self, streams: Sequence[PoolStream[Any, Any]]) -> Iterator[Result]:
        batches: list[tuple[list[BatchedStream], list[Any], State, bool]] = []
        with self.lock, torch.inference_mode():
            for members, last in self._batches(cast(Sequence[BatchedStream], streams)):
                group = members[0].group
                assert group is not None
                tiles = [stream.take_rest() if last else stream.take_tile() for stream in members]
                batches.append((members, tiles, group.take(members), last))
                for stream in members:
                    stream.group = None
        with network_guard(self.setup.device) as threads:
            made = run_parallel(self._run_batch, batches, threads, helper_guard)
        self._groups = {key: group for key, group in self._groups.items() if group.streams}
        for (members, _, state, last), results in zip(batches, made, strict=True):
            if not last and not isinstance(results, CodecError):
                self._put_back(state, members)
            for number, stream in enumerate(members):
                yield stream, results if isinstance(results, CodecError) else self._finished(stream, results[number], last)

    def _put_back(self, state: State, members: Sequence[BatchedStream]) -> None:
        with self.lock, torch.inference_mode():
            staying = [number for number, stream in enumerate(members) if not stream.ended]
            if len(staying) < len(members):
                state = state.take(staying)
            if staying:
                self._put(state, [members[number] for number in staying])

    def _batches(self, streams: Sequence[BatchedStream]) -> Iterator[tuple[list[BatchedStream], bool]]:
        """Streams that run together, each with whether their signals end."""
        together: dict[Any, list[BatchedStream]] = {}
        for stream in streams:
            if stream._has_tile:
                together.setdefault((id(stream.group), stream.kind_of_tile), []).append(stream)
            else:
                yield [stream], True
        for members in together.values():
            place = {stream: row for row, stream in enumerate(members[0].group.streams)} if members[0].group else {}
            members.sort(key=place.__getitem__)
            for start in range(0, len(members), self._max_rows):
                yield members[start : start + self._max_rows], False

    def _run_batch(self, batch: tuple[list[BatchedStream], list[Any], State, bool]) -> list[Any] | CodecError:
        members, tiles, state, last = batch
        try:
            return self.step_rows(members[0].network, tiles, state, last)
        except CodecError as error:
            return error
        except (RuntimeError, MemoryError) as error:
            return network_failure(error)

    @staticmethod
    def _finished(stream: BatchedStream, made: Any, last: bool) -> Any:
        """Output of a stream; it ends with the last tile."""
        try:
            output = stream.output(made, last)
        except CodecError as error:
            return error
        stream._ended = stream._ended or last
        return output


class DecoderStream(BatchedStream):
    """Stream of a `BatchedDecoderPool`, of one signal of one stream of tokens."""

    def __init__(self, pool: BatchedDecoderPool) -> None:
        super().__init__(pool)
        self._decoders = pool
        self._tokens = TokenStream(pool.backend)
        self._columns: list[Columns] = []
        self._strides: tuple[int, ...] = ()

    def _accept(self, value: CodecTokens) -> None:
        first = self._tokens.accept_single(value)
        if not self._columns:
            self._strides, self._columns = value.strides, [Columns(1, np.int32) for _ in value.strides]
            self._decoders.admit(self, self._decoders.decoder_of(first))
        for columns, code in zip(self._columns, value.codes, strict=True):
            columns.push(code)

    @property
    def _frames(self) -> int:
        return self._columns[0].count * self._strides[0] if self._columns else 0

    @property
    def _queued_seconds(self) -> float:
        return self._frames / self._pool.backend.frame_rate

    @property
    def _has_tile(self) -> bool:
        tile = self._pool.options.tile(self._tiles_run)
        return self._frames >= tile and all(
            columns.count >= tile // stride for columns, stride in zip(self._columns, self._strides, strict=True)
        )

    @property
    def kind_of_tile(self) -> Any:
        return self._pool.options.tile(self._tiles_run), len(self._strides)

    def take_tile(self) -> list[NDArray[Any]]:
        tile = self._pool.options.tile(self._tiles_run)
        return [columns.take(tile // stride) for columns, stride in zip(self._columns, self._strides, strict=True)]

    def take_rest(self) -> list[NDArray[Any]]:
        return [columns.take(columns.count) for columns in self._columns]

    def output(self, made: Pcm, last: bool) -> Pcm:
        return self._tokens.trim(made)

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
        options: PoolOptions,
        network: CodecNetwork,
        setup: Callable[[int], StreamSetup],
        variant: Callable[[CodecTokens], Hashable],
        decoder_of: Callable[[CodecNetwork, CodecTokens], StreamingDecoder],
    ) -> None:
        super().__init__(backend, options, network, setup)
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

    def step_rows(self, network: StreamingDecoder, tiles: Sequence[list[NDArray[Any]]], state: State, last: bool) -> list[Pcm]:
        indices = [to_device(list(codes), codes[0].shape[1], self.setup.device) for codes in zip(*tiles, strict=True)]
        pcm = to_pcm(network.decode_step(indices, state, last))
        return np.split(pcm, len(tiles))

    def _seconds(self, output: Pcm) -> float:
        return float(output.shape[1] / self.backend.sample_rate)


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
        if not self._pushed:
            raise InvalidInput("no audio was pushed; push some before finish")


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
    ) -> None:
        super().__init__(backend, options, network, setup)
        self._num_codebooks, self.label = num_codebooks, label

    def _new_stream(self) -> EncoderStream:
        return EncoderStream(self)

    def init_state(self, network: CodecNetwork) -> State:
        return network.encoder_state(self.setup, self._num_codebooks)

    def step_rows(self, network: CodecNetwork, tiles: Sequence[Pcm], state: State, last: bool) -> list[list[NDArray[np.int32]]]:
        x = to_network_input(tiles, tiles[0].shape[1], self.backend.channels, self.setup)
        codes = codes_to_host(network.encode_step(x, cast(EncoderState, state), last))
        return [[code[row : row + 1].copy() for code in codes] for row in range(len(tiles))]

    def _seconds(self, output: CodecTokens) -> float:
        return output.seconds
