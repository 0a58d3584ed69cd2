"""Options of pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from ..checks import check_tile
from ..errors import InvalidInput
from ..specs import CodecSpec, Latency
from ..validation import is_int

MAX_QUEUE = 60.0
"""Seconds of audio that a stream may have queued on either side, by default."""


class DecoderPoolOptions(TypedDict, total=False):
    """Options of `CodecBackend.decoder_pool`."""

    latency: Latency
    tile_frames: int | None
    first_tile_frames: int | None
    max_queue: float
    as_tensors: bool


class EncoderPoolOptions(DecoderPoolOptions, total=False):
    """Options of `CodecBackend.encoder_pool`."""

    bandwidth: float | None
    num_codebooks: int | None


@dataclass(frozen=True)
class PoolSettings:
    """Checked options of a pool.

    Attributes:
        max_streams: Most open streams.
        tile_frames: Frames of a tile.
        first_tile_frames: Frames of the first tiles of a stream, so that its first output is early.
        first_tiles: Number of these.
        max_queue: Most seconds of audio that a stream may have queued on either side. A tile may always be.
        as_tensors: Streams give tensors on the codec's device, and take them.
    """

    max_streams: int
    tile_frames: int
    first_tile_frames: int
    first_tiles: int = 4
    max_queue: float = MAX_QUEUE
    as_tensors: bool = False

    @classmethod
    def of(
        cls,
        spec: CodecSpec,
        max_streams: int,
        latency: Latency,
        tile_frames: int | None,
        first_tile_frames: int | None,
        max_queue: float,
        as_tensors: bool,
    ) -> PoolSettings:
        """Validate options.

        Raises:
            InvalidInput: An option cannot be used.
        """
        if not is_int(max_streams) or max_streams < 1:
            raise InvalidInput(f"max_streams is {max_streams!r}; expected a positive integer")
        if not isinstance(max_queue, int | float) or not max_queue > 0:
            raise InvalidInput(f"max_queue is {max_queue!r}; expected seconds of audio, more than 0")
        tile = check_tile(spec, latency, tile_frames)
        first = tile if first_tile_frames is None else check_tile(spec, latency, first_tile_frames, "first_tile_frames")
        return cls(max_streams, tile, min(first, tile), max_queue=max_queue, as_tensors=as_tensors)

    def tile(self, number: int) -> int:
        """Frames of tile `number` of a stream."""
        return self.first_tile_frames if number < self.first_tiles else self.tile_frames
