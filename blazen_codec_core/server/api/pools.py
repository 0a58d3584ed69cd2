"""Pools that all clients share: one for each codec, direction and set of options, opened at the first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...checks import check_tile
from ...errors import NotYetImplemented, ServiceError
from ...pools import Pool, PoolStats, PoolStream
from ...protocol import Open
from ...provider import DynCodecProvider
from ...specs import Direction

OnStep = Callable[["PoolKey", float, int], object]


@dataclass(frozen=True)
class PoolKey:
    """Options that the streams of one pool have in common.

    Attributes:
        codec: Name of the codec.
        direction: `encode` or `decode`.
        tile_frames: Frames of a tile.
        num_codebooks: Number of codebooks of tokens, for `encode`.
    """

    codec: str
    direction: Direction
    tile_frames: int
    num_codebooks: int | None = None

    @classmethod
    def of(cls, name: str, codec: DynCodecProvider, asked: Open) -> PoolKey:
        """Return the key for what a client asked.

        Raises:
            InvalidInput: The codec has no such tile, bandwidth or number of codebooks.
            NotYetImplemented: The codec does not stream in this direction.
        """
        spec = codec.spec
        if asked.direction not in spec.capabilities.streams:
            raise NotYetImplemented(
                f"{spec.name} does not stream in the direction {asked.direction}; use POST /v1/{asked.direction}"
            )
        count = spec.codebooks_for(asked.bandwidth, asked.num_codebooks)
        tile = check_tile(spec, asked.latency, asked.tile_frames)
        return cls(name, asked.direction, tile, count if asked.direction == "encode" else None)

    @property
    def labels(self) -> tuple[str, str]:
        """Codec and direction."""
        return self.codec, self.direction


@dataclass
class SharedPool:
    """An open pool, and what its sessions say of themselves.

    Attributes:
        pool: The pool, which steps by itself.
        first_frames: Frames of input before the first output.
        latency_samples: Most samples of input whose output is not out.
        users: Streams that are open or about to be.
    """

    pool: Pool[Any, Any]
    first_frames: int
    latency_samples: int
    closing: AsyncExitStack = field(repr=False)
    users: int = 0


class SharedPools:
    """The pools of a server. For one event loop.

    Args:
        most: Most open pools; one without streams is closed for another one.
        max_streams: Most streams of a pool.
        max_queue: Most seconds of audio that a stream has queued on either side.
        max_wait_ms: Milliseconds that a stream waits for others, so that they share a step.
        on_step: Called after each step, with the seconds it took and its streams.
    """

    def __init__(self, most: int, max_streams: int, max_queue: float, max_wait_ms: float, on_step: OnStep) -> None:
        self._most, self._max_streams, self._max_queue = most, max_streams, max_queue
        self._max_wait_ms, self._on_step = max_wait_ms, on_step
        self._pools: dict[PoolKey, SharedPool] = {}
        self._opening: dict[PoolKey, asyncio.Task[SharedPool]] = {}

    def stats(self) -> Iterator[tuple[tuple[str, str], PoolStats]]:
        """Yield the labels and figures of all pools."""
        for key, shared in list(self._pools.items()):
            yield key.labels, shared.pool.stats()

    @asynccontextmanager
    async def stream(self, codec: DynCodecProvider, key: PoolKey) -> AsyncIterator[tuple[SharedPool, PoolStream[Any, Any]]]:
        """Open a stream, which is closed on exit.

        Raises:
            PoolFull: The pool has as many streams as it may have.
            ServiceError: All pools are in use, with other options (`busy`).
            CodecError: Loading the model failed.
        """
        shared = await self._get(codec, key)
        try:
            with shared.pool.open() as stream:
                yield shared, stream
        finally:
            shared.users -= 1

    async def _get(self, codec: DynCodecProvider, key: PoolKey) -> SharedPool:
        while (shared := self._pools.get(key)) is None:
            if key not in self._opening:
                await self._make_room()
            if (task := self._opening.get(key)) is None:  # another client may have begun meanwhile
                task = self._opening[key] = asyncio.create_task(self._open(codec, key))
                task.add_done_callback(partial(self._opened, key))
            await asyncio.shield(task)  # afterwards it may have been closed already, for one with other options
        shared.users += 1
        return shared

    def _opened(self, key: PoolKey, task: asyncio.Task[SharedPool]) -> None:
        del self._opening[key]
        if not task.cancelled():
            task.exception()  # its clients raise it

    async def _make_room(self) -> None:
        while len(self._pools) + len(self._opening) >= self._most:
            idle = next((key for key, shared in self._pools.items() if not shared.users), None)
            if idle is None:
                raise ServiceError(f"streams with {self._most} sets of options are open, the most at once; use the same", "busy")
            await self._pools.pop(idle).closing.aclose()

    async def _open(self, codec: DynCodecProvider, key: PoolKey) -> SharedPool:
        def made() -> tuple[Pool[Any, Any], int, int]:
            options: dict[str, Any] = {"tile_frames": key.tile_frames}
            if key.direction == "decode":
                with codec.decoder_session(**options) as decoder:
                    sizes = decoder.first_frames, decoder.latency_samples
                return codec.decoder_pool(self._max_streams, max_queue=self._max_queue, **options), *sizes
            options["num_codebooks"] = key.num_codebooks
            with codec.encoder_session(codec.channels, **options) as encoder:
                sizes = -(-encoder.first_samples // codec.spec.hop_length), encoder.latency_samples
            return codec.encoder_pool(self._max_streams, max_queue=self._max_queue, **options), *sizes

        pool, first_frames, latency = await asyncio.to_thread(made)
        closing = AsyncExitStack()
        await closing.enter_async_context(pool.serving(self._max_wait_ms, partial(self._on_step, key)))
        shared = self._pools[key] = SharedPool(pool, first_frames, latency, closing)
        return shared

    async def close(self) -> None:
        """Close all pools, and with them their streams."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        while self._pools:
            await self._pools.popitem()[1].closing.aclose()
