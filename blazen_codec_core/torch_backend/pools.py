"""Pools whose streams run as the rows of a batch.

The states of streams that can run together are one state, with a row for each. States differ until a stream has settled: the
first tiles have nothing behind them. So streams are kept in groups of equal signatures. Those that have a tile ready are taken
out, run, and put back. The last tile of a stream runs alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import CodecBackend
from ..checks import check_piece
from ..errors import CodecError, InferenceError, InvalidInput, reason
from ..nn.codec_network import CodecNetwork, EncoderState
from ..nn.kernels.dispatch import is_batch_exact
from ..nn.layers.base import State, StreamSetup
from ..nn.pipeline import run_parallel
from ..pools import Pool, PoolOptions, PoolStats, PoolStream
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .arena import Arena
from .cuda_graphs import CaptureFn, StaticNoise
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


class Group(ABC):
    """Streams whose states have equal signatures."""

    @property
    @abstractmethod
    def streams(self) -> Collection[BatchedStream]:
        """The streams, in the order of their states."""

    @abstractmethod
    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        """Add streams whose states are the rows of a state."""

    @abstractmethod
    def take(self, streams: Sequence[BatchedStream]) -> State:
        """Remove streams; return the state of these, in their order."""

    def remove(self, stream: BatchedStream) -> None:
        """Remove a stream that has ended."""
        self.take([stream])


class JoinedGroup(Group):
    """Streams whose states are the rows of one state."""

    def __init__(self) -> None:
        self._streams: list[BatchedStream] = []
        self.state: State | None = None

    @property
    def streams(self) -> Collection[BatchedStream]:
        return self._streams

    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        self.state = state if self.state is None else type(state).join([self.state, state])
        self._streams += streams

    def take(self, streams: Sequence[BatchedStream]) -> State:
        assert self.state is not None
        rows = [self._streams.index(stream) for stream in streams]
        if rows == list(range(len(self._streams))):
            state, self.state, self._streams = self.state, None, []
            return state
        state, left = self.state.take(rows), [row for row in range(len(self._streams)) if row not in set(rows)]
        self.state = self.state.take(left) if left else None
        self._streams = [self._streams[row] for row in left]
        return state


class ArenaGroup(Group):
    """Streams whose states are in an arena.

    Args:
        kind: Kind of the tiles that its graphs run; see `BatchedStream.kind_of_tile`.
    """

    def __init__(self, arena: Arena, kind: Any) -> None:
        self.arena, self.kind = arena, kind
        self.slots: dict[BatchedStream, int] = {}

    @property
    def streams(self) -> Collection[BatchedStream]:
        return self.slots

    def add(self, state: State, streams: Sequence[BatchedStream]) -> None:
        self.slots.update(zip(streams, self.arena.put(state), strict=True))

    def take(self, streams: Sequence[BatchedStream]) -> State:
        return self.arena.take([self.slots.pop(stream) for stream in streams])

    def remove(self, stream: BatchedStream) -> None:
        self.arena.free([self.slots.pop(stream)])


@dataclass
class Batch:
    """Streams that run together.

    Attributes:
        members: The streams.
        tiles: Tile of each.
        last: The signals end with these tiles.
        kind: Kind of the tiles.
        state: State of the streams, unless they run in an arena.
        signature: Signature of this state before the step.
        group: Streams of the arena in which these run.
        slots: Their slots. A stream that leaves during the step frees its slot, which nobody gets before the next step.
    """

    members: list[BatchedStream]
    tiles: list[Any]
    last: bool
    kind: Any
    state: State | None = None
    signature: Any = None
    group: ArenaGroup | None = None
    slots: Sequence[int] = ()


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
        capture: Captures graphs of the steps of settled streams, if these are to run in graphs.
    """

    ROWS: ClassVar[int] = 16
    """Most rows of a batch on a CPU, whose data stays in the cache."""
    ARENAS: ClassVar[int] = 4
    """Most arenas, each for one shape of states and tiles. Streams of other shapes run without graphs."""

    def __init__(
        self,
        backend: CodecBackend,
        options: PoolOptions,
        network: CodecNetwork,
        setup: Callable[[int], StreamSetup],
        capture: CaptureFn | None,
    ) -> None:
        super().__init__(backend, options)
        self.network, self.setup = network, setup(1)
        self._capture, self._noise = capture, None
        if capture and self.setup.noise:
            self._noise = StaticNoise(self.setup.noise)
            self.setup = replace(self.setup, noise=self._noise)
        self._groups: dict[Any, Group] = {}
        self._arenas: dict[Any, ArenaGroup] = {}
        self._max_rows = options.max_streams
        if self.setup.device.type == "cpu":
            self._max_rows = self.ROWS if is_batch_exact(self.setup.device) else 1

    @abstractmethod
    def init_state(self, network: Any) -> State:
        """State of a new stream."""

    @abstractmethod
    def inputs_of(self, tiles: Sequence[Any]) -> list[Tensor]:
        """Inputs of the network, with a row for each tile."""

    @abstractmethod
    def step_rows(self, network: Any, inputs: Sequence[Tensor], state: State, last: bool) -> list[Tensor]:
        """Run a tile of each row; return outputs with as many rows."""

    @abstractmethod
    def outputs_of(self, made: list[Tensor]) -> list[Any]:
        """Outputs of each row, on the host."""

    def admit(self, stream: BatchedStream, network: Any) -> None:
        """Give a stream its state."""
        stream.network = network
        with inference_guard():
            self._put(self.init_state(network), [stream])

    def stats(self) -> PoolStats:
        with self.lock:
            buckets = Counter[int]()
            for group in self._arenas.values():
                buckets.update(group.arena.bytes_per_bucket)
            return replace(super().stats(), bytes_per_bucket=dict(buckets))

    def _forget(self, stream: PoolStream[Any, Any]) -> None:
        assert isinstance(stream, BatchedStream)
        if stream.group is not None and stream in stream.group.streams:
            with torch.inference_mode():
                stream.group.remove(stream)
        stream.group = None

    def _put(self, state: State, streams: Sequence[BatchedStream]) -> None:
        """Put streams into the group of their network and their state's signature."""
        self._add(self._groups.setdefault((id(streams[0].network), state.signature()), JoinedGroup()), state, streams)
        if not self._bytes_per_stream:
            self._bytes_per_stream = sum(tensor.nbytes for tensor in state.tensors()) // len(streams)

    @staticmethod
    def _add(group: Group, state: State, streams: Sequence[BatchedStream]) -> None:
        group.add(state, streams)
        for stream in streams:
            stream.group = group

    def _run(self, streams: Sequence[PoolStream[Any, Any]]) -> Iterator[Result]:
        with self.lock, torch.inference_mode():
            batches = list(self._batches(cast(Sequence[BatchedStream], streams)))
        with network_guard(self.setup.device) as threads:
            made = run_parallel(self._run_batch, batches, 1 if self._capture else threads, helper_guard)
        for batch, results in zip(batches, made, strict=True):
            if not batch.last and not isinstance(results, CodecError):
                self._put_back(batch)
            for number, stream in enumerate(batch.members):
                result = results if isinstance(results, CodecError) else results[number]
                yield stream, result if isinstance(result, CodecError) else self._finished(stream, result, batch.last)
        self._groups = {key: group for key, group in self._groups.items() if group.streams}

    def _put_back(self, batch: Batch) -> None:
        """Put the streams of a batch back into a group, or into an arena once a step no longer changes their signature."""
        if (state := batch.state) is None:
            return
        with self.lock, torch.inference_mode():
            staying = [number for number, stream in enumerate(batch.members) if not stream.ended]
            if not staying:
                return
            if len(staying) < len(batch.members):
                state = state.take(staying)
            streams = [batch.members[number] for number in staying]
            if self._capture is None or state.signature() != batch.signature:
                self._put(state, streams)
                return
            settled = [number for number, stream in enumerate(streams) if stream.kind_of_tile == batch.kind]
            if others := [number for number in range(len(streams)) if number not in settled]:
                self._put(state.take(others), [streams[number] for number in others])
            if settled:
                group = self._arena_group(self._capture, streams[0].network, state, batch.kind)
                self._add(group, state.take(settled), [streams[number] for number in settled])

    def _arena_group(self, capture: CaptureFn, network: Any, state: State, kind: Any) -> Group:
        """Group for the settled streams of a network: an arena, or if there are `ARENAS` others in use, none of them."""
        signature = state.signature()
        if group := self._arenas.get(key := (id(network), signature, kind)):
            return group
        for other in [other for other, group in self._arenas.items() if not group.streams][: len(self._arenas) + 1 - self.ARENAS]:
            del self._arenas[other]
        if len(self._arenas) >= self.ARENAS:
            return self._groups.setdefault((id(network), signature), JoinedGroup())

        def step(inputs: Sequence[Tensor], state: State) -> list[Tensor]:
            return self.step_rows(network, inputs, state, False)

        arena = Arena(step, capture, self._noise, state, self.options.max_streams)
        self._arenas[key] = ArenaGroup(arena, kind)
        return self._arenas[key]

    def _batches(self, streams: Sequence[BatchedStream]) -> Iterator[Batch]:
        """Take the streams that run together out of their groups, unless they run in an arena."""
        together: dict[Any, list[BatchedStream]] = {}
        for stream in streams:
            if stream._has_tile:
                together.setdefault((id(stream.group), stream.kind_of_tile), []).append(stream)
            else:
                yield self._batch([stream], None, True)
        for (_, kind), members in together.items():
            place = {stream: row for row, stream in enumerate(members[0].group.streams)} if members[0].group else {}
            members.sort(key=place.__getitem__)
            for start in range(0, len(members), self._max_rows):
                yield self._batch(members[start : start + self._max_rows], kind, False)

    def _batch(self, members: list[BatchedStream], kind: Any, last: bool) -> Batch:
        group = members[0].group
        assert group is not None
        tiles = [stream.take_rest() if last else stream.take_tile() for stream in members]
        if isinstance(group, ArenaGroup) and not last and group.kind == kind:
            return Batch(members, tiles, last, kind, group=group, slots=[group.slots[stream] for stream in members])
        state = group.take(members)
        for stream in members:
            stream.group = None
        return Batch(members, tiles, last, kind, state, state.signature())

    def _run_batch(self, batch: Batch) -> list[Any] | CodecError:
        try:
            inputs = self.inputs_of(batch.tiles)
            if batch.group:
                return self.outputs_of(batch.group.arena.step(batch.slots, inputs))
            assert batch.state is not None
            return self.outputs_of(self.step_rows(batch.members[0].network, inputs, batch.state, batch.last))
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
        capture: CaptureFn | None,
    ) -> None:
        super().__init__(backend, options, network, setup, capture)
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

    def inputs_of(self, tiles: Sequence[list[NDArray[Any]]]) -> list[Tensor]:
        return [to_device(list(codes), codes[0].shape[1], self.setup.device) for codes in zip(*tiles, strict=True)]

    def step_rows(self, network: StreamingDecoder, inputs: Sequence[Tensor], state: State, last: bool) -> list[Tensor]:
        return [network.decode_step(inputs, state, last)]

    def outputs_of(self, made: list[Tensor]) -> list[Pcm]:
        return np.split(to_pcm(made[0]), len(made[0]))

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
