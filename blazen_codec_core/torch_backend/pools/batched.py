"""Pools whose streams run as the rows of a batch.

States of streams that can run together are joined, with a row for each. States differ until a stream has settled: the first
tiles have nothing behind them. So streams are kept in groups of equal signatures. Those that have a tile ready are taken out,
run, and put back. While all of them are ready, each batch stays a group, so that no state is copied. The last tile of a stream
runs alone.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ...backend import CodecBackend
from ...errors import CodecError
from ...nn.codec_network import CodecNetwork
from ...nn.kernels.dispatch import is_batch_exact
from ...nn.layers.base import State, StreamSetup
from ...nn.pipeline import run_parallel
from ...pools import Pool, PoolSettings, PoolStats, PoolStream
from ..cuda_graphs import CaptureFn, StaticNoise
from ..guard import NETWORK_ERRORS, helper_guard, inference_guard, network_failure, network_guard
from .arena import Arena
from .groups import ArenaGroup, Group, JoinedGroup

Result = tuple[PoolStream[Any, Any], Any]


@dataclass(frozen=True)
class PoolNetwork:
    """A network as the streams of a pool run it.

    Attributes:
        network: Prepared network.
        setup: Setup of a stream.
        capture: Captures graphs of the steps of settled streams, if these are to run in graphs.
        noise: Source of noise that graphs draw from, if they do.
    """

    network: CodecNetwork
    setup: StreamSetup
    capture: CaptureFn | None
    noise: StaticNoise | None

    @classmethod
    def of(cls, network: CodecNetwork, setup: StreamSetup, capture: CaptureFn | None) -> PoolNetwork:
        """Let the setup's noise come from static tensors where steps are captured."""
        if capture is None or setup.noise is None:
            return cls(network, setup, capture, None)
        noise = StaticNoise(setup.noise)
        return cls(network, replace(setup, noise=noise), capture, noise)


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
        is_settled: The step keeps the signature.
        is_apart: The streams become a group of their own.
        group: Streams of the arena in which these run.
        slots: Their slots. A stream that leaves during the step frees its slot, which nobody gets before the next step.
    """

    members: list[BatchedStream]
    tiles: list[Any]
    last: bool
    kind: Any
    state: State | None = None
    signature: Any = None
    is_settled: bool = False
    is_apart: bool = False
    group: ArenaGroup | None = None
    slots: Sequence[int] = ()


class BatchedStream(PoolStream[Any, Any]):
    """A stream of a `BatchedPool`.

    Attributes:
        network: What runs the stream; streams of one group have the same.
        group: Group whose state has the stream's row; `None` before the first push.
    """

    network: Any
    _pool: BatchedPool

    def __init__(self, pool: BatchedPool) -> None:
        super().__init__(pool)
        self.group: Group | None = None

    @property
    @abstractmethod
    def kind_of_tile(self) -> Any:
        """Shape of the next tile; tiles of equal shapes run together."""

    @abstractmethod
    def take_tile(self) -> Any:
        """Take the input of the next tile."""

    @abstractmethod
    def take_rest(self) -> Any:
        """Take the input of the last tile."""

    @abstractmethod
    def output(self, made: Any, last: bool) -> Any:
        """Convert the outputs of a tile to what the caller gets."""


class BatchedPool(Pool[Any, Any]):
    """Pool whose ready streams run as batches."""

    ROWS: ClassVar[int] = 16
    """Most rows of a batch on a CPU, whose data stays in the cache."""
    ARENAS: ClassVar[int] = 4
    """Most arenas, each for one shape of states and tiles. Streams of other shapes run without graphs."""

    def __init__(self, backend: CodecBackend, settings: PoolSettings, network: PoolNetwork) -> None:
        super().__init__(backend, settings)
        self.network, self.setup = network.network, network.setup
        self._capture, self._noise = network.capture, network.noise
        self._groups: dict[Any, list[JoinedGroup]] = {}
        self._arenas: dict[Any, ArenaGroup] = {}
        self._max_rows = settings.max_streams
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
        """Outputs of each row: on the host, or tensors on the device if the pool gives tensors."""

    def admit(self, stream: BatchedStream, network: Any) -> None:
        """Give a stream its state."""
        stream.network = network
        with inference_guard():
            state = self.init_state(network)
            self._put(state, state.signature(), [stream])

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

    def _put(self, state: State, signature: Any, streams: Sequence[BatchedStream], is_apart: bool = False) -> JoinedGroup:
        """Put streams into the first group of their network and their state's signature, or into an empty one; return it."""
        key = (id(streams[0].network), signature)
        if key not in self._groups:
            self._groups[key] = []
            size = sum(tensor.nbytes for tensor in state.tensors()) // len(streams)
            self._bytes_per_stream = max(self._bytes_per_stream, size)
        groups = self._groups[key]
        group = next((group for group in groups if not (is_apart and group.streams)), None)
        if group is None:
            groups.append(group := JoinedGroup(key, signature))
        self._add(group, state, streams)
        return group

    @staticmethod
    def _add(group: Group, state: State, streams: Sequence[BatchedStream]) -> None:
        group.add(state, streams)
        for stream in streams:
            stream.group = group

    def _run(self, streams: Sequence[PoolStream[Any, Any]]) -> Iterator[Result]:
        with self.lock, torch.inference_mode():
            open_streams = [stream for stream in cast(Sequence[BatchedStream], streams) if not stream.ended]
            batches = list(self._batches(open_streams))
        with network_guard(self.setup.device) as threads:
            made = run_parallel(self._run_batch, batches, 1 if self._capture else threads, helper_guard)
        for batch, results in zip(batches, made, strict=True):
            for number, stream in enumerate(batch.members):
                result = results if isinstance(results, CodecError) else results[number]
                yield stream, result if isinstance(result, CodecError) else self._finished(stream, result, batch.last)
            if not batch.last and not isinstance(results, CodecError):
                self._put_back(batch)  # streams have counted the tile, which chooses the kind of the next one
        with self.lock:  # a push in another thread may add a group meanwhile
            kept = {key: [group for group in groups if group.streams] for key, groups in self._groups.items()}
            self._groups = {key: groups for key, groups in kept.items() if groups}

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
            signature = batch.signature if batch.is_settled else state.signature()  # which takes as long as some kernels
            if self._capture is None or signature != batch.signature:
                group = self._put(state, signature, streams, batch.is_apart)
                if signature == batch.signature:
                    group.settled.add(batch.kind)
                return
            settled = [number for number, stream in enumerate(streams) if stream.kind_of_tile == batch.kind]
            if others := [number for number in range(len(streams)) if number not in settled]:
                self._put(state.take(others), signature, [streams[number] for number in others])
            if settled:
                state, streams = state.take(settled), [streams[number] for number in settled]
                if arena := self._arena_group(self._capture, streams[0].network, state, signature, batch.kind):
                    self._add(arena, state, streams)
                else:
                    self._put(state, signature, streams)

    def _arena_group(self, capture: CaptureFn, network: Any, state: State, signature: Any, kind: Any) -> Group | None:
        """Arena for the settled streams of a network; `None` if there are `ARENAS` others in use."""
        if group := self._arenas.get(key := (id(network), signature, kind)):
            return group
        for other in [other for other, group in self._arenas.items() if not group.streams][: len(self._arenas) + 1 - self.ARENAS]:
            del self._arenas[other]
        if len(self._arenas) >= self.ARENAS:
            return None

        def step(inputs: Sequence[Tensor], state: State) -> list[Tensor]:
            return self.step_rows(network, inputs, state, False)

        arena = Arena(step, capture, self._noise, state, self.settings.max_streams)
        self._arenas[key] = ArenaGroup(key, signature, arena, kind)
        return self._arenas[key]

    def _batches(self, streams: Sequence[BatchedStream]) -> Iterator[Batch]:
        """Take the streams that run together out of their groups, unless they run in an arena."""
        together: dict[Any, dict[Group, set[BatchedStream]]] = {}
        for stream in streams:
            assert stream.group is not None
            if stream._has_tile:
                together.setdefault((stream.group.key, stream.kind_of_tile), {}).setdefault(stream.group, set()).add(stream)
            else:
                yield self._batch([stream], None, True)
        for (key, kind), groups in together.items():
            are_all_ready = sum(map(len, groups.values())) == sum(len(group.streams) for group in self._groups.get(key, groups))
            rest: list[BatchedStream] = []
            for group, ready in groups.items():
                members = [stream for stream in group.streams if stream in ready]  # in the order of their states
                if are_all_ready and self._max_rows // 2 < len(members) <= self._max_rows:
                    yield self._batch(members, kind, False, True)
                else:
                    rest += members
            for start in range(0, len(rest), self._max_rows):
                yield self._batch(rest[start : start + self._max_rows], kind, False, are_all_ready)

    def _batch(self, members: list[BatchedStream], kind: Any, last: bool, is_apart: bool = False) -> Batch:
        group = members[0].group
        assert group is not None
        tiles = [stream.take_rest() if last else stream.take_tile() for stream in members]
        if isinstance(group, ArenaGroup) and not last and group.kind == kind:
            return Batch(members, tiles, last, kind, group=group, slots=[group.slots[stream] for stream in members])
        states = [group.take(list(some)) for group, some in itertools.groupby(members, lambda stream: cast(Group, stream.group))]
        for stream in members:
            stream.group = None
        state = type(states[0]).join(states)
        return Batch(members, tiles, last, kind, state, group.signature, kind in group.settled, is_apart)

    def _run_batch(self, batch: Batch) -> list[Any] | CodecError:
        try:
            inputs = self.inputs_of(batch.tiles)
            if batch.group:
                return self.outputs_of(batch.group.arena.step(batch.slots, inputs))
            assert batch.state is not None
            return self.outputs_of(self.step_rows(batch.members[0].network, inputs, batch.state, batch.last))
        except CodecError as error:
            return error
        except NETWORK_ERRORS as error:
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
