"""Pools: many streams on one model, which join, go on and leave at any time.

A pool runs a step for all streams that have a tile ready. What a stream gets is what it would get alone. Streams with the least
left to play go first, and one that fails ends alone.
"""

from .options import MAX_QUEUE, DecoderPoolOptions, EncoderPoolOptions, PoolSettings
from .pool import DecoderPool, EncoderPool, Pool, PoolStats
from .session_pool import SessionPool
from .stream import PoolStream

__all__ = [
    "MAX_QUEUE",
    "DecoderPool",
    "DecoderPoolOptions",
    "EncoderPool",
    "EncoderPoolOptions",
    "Pool",
    "PoolSettings",
    "PoolStats",
    "PoolStream",
    "SessionPool",
]
