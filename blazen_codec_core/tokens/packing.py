"""Codes and scales of tokens, checked and stored as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidTokens
from ..validation import as_array

if TYPE_CHECKING:
    from .tokens import CodecTokens

Codes = NDArray[np.int32]
Scales = NDArray[np.float32]


class PackedCodes:
    """Descriptor that stores codes as bytes and returns read-only arrays.

    A long stream yields many small token arrays. On the heap they would lie between a network's large temporary arrays and
    fragment it: gigabytes per hour of audio. Small `bytes` objects are allocated from separate arenas.
    """

    def __get__(self, tokens: CodecTokens, owner: type) -> tuple[Codes, ...]:
        packed: tuple[tuple[bytes, tuple[int, int]], ...] = tokens.__dict__["codes"]
        return tuple([np.frombuffer(data, np.int32).reshape(shape) for data, shape in packed])  # no frame a codebook

    def __set__(self, tokens: CodecTokens, codes: Sequence[Any]) -> None:
        tokens.__dict__["codes"] = codes


def packed_shape(tokens: CodecTokens) -> tuple[int, int]:
    """Shape of the first codebook's codes, `(streams, frames / stride)`."""
    shape: tuple[int, int] = tokens.__dict__["codes"][0][1]
    return shape


class PackedScales:
    """Descriptor that stores scales as bytes, like `PackedCodes`."""

    def __get__(self, tokens: CodecTokens | None, owner: type) -> Scales | None:
        packed: tuple[bytes, tuple[int, int]] | None = tokens.__dict__["scales"] if tokens is not None else None
        return np.frombuffer(packed[0], np.float32).reshape(packed[1]) if packed else None

    def __set__(self, tokens: CodecTokens, scales: Any) -> None:
        tokens.__dict__["scales"] = scales


def pack_scales(scales: Any, shape: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
    """Check scales, and return their bytes and shape; raise `InvalidTokens` if they are invalid."""
    array = as_array(scales, "scales cannot be an array")
    if array.shape != shape:
        raise InvalidTokens(f"scales have shape {array.shape}; expected {shape}, (streams, segments)")
    if array.dtype.kind != "f" or not np.isfinite(array).all() or (array.size and array.min() <= 0):
        raise InvalidTokens("scales are invalid; expected positive floating-point numbers")
    return array.astype(np.float32).tobytes(), shape


def check_code(code: Any, number: int, size: int) -> Codes:
    """Return the codes of codebook `number` as int32; raise `InvalidTokens` unless they are integers below `size`."""
    array = as_array(code, f"codebook {number} cannot be an array")
    if array.ndim != 2:
        raise InvalidTokens(f"codebook {number} has shape {array.shape}; expected (streams, frames)")
    if array.dtype.kind not in "iu":
        raise InvalidTokens(f"codebook {number} has type {array.dtype}; expected integers")
    if not array.shape[0]:
        raise InvalidTokens(f"codebook {number} has no streams")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise InvalidTokens(f"codebook {number} has a token outside 0 … {size - 1}")
    return array.astype(np.int32)
