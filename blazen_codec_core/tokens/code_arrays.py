"""Conversion of code arrays of common packages to one `(streams, frames)` array per codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidTokens
from ..validation import as_array

if TYPE_CHECKING:
    from ..specs import CodecSpec

Array = NDArray[Any]


def by_codebook(spec: CodecSpec, codes: Any) -> list[Array]:
    """Split codes into one array `(streams, frames / stride)` per codebook.

    Args:
        codes: A sequence of arrays, one per codebook, or an array, tensor or nested list of two to four axes.

    Raises:
        InvalidTokens: The type or shape is unsupported, or the shape is ambiguous for this model.
    """
    if not isinstance(codes, Sequence):
        if not hasattr(codes, "shape"):
            raise InvalidTokens(f"codes are {codes!r}; expected one array per codebook")
        return _split(spec, as_array(codes, "the codes cannot be an array"))
    if isinstance(codes, str | bytes):
        raise InvalidTokens(f"codes are {codes!r}; expected one array per codebook")
    if not codes:
        raise InvalidTokens(f"codes are empty; expected one array per codebook, {spec.codebook_numbers} for {spec.name}")
    if (table := _nested(codes)) is not None:
        return _split(spec, table)
    return [np.atleast_2d(as_array(code, f"codebook {number} cannot be an array")) for number, code in enumerate(codes)]


def _nested(codes: Sequence[Any]) -> Array | None:
    """Convert nested lists of at least three levels to an array; `None` for anything else, including ragged lists."""
    if not all(isinstance(rows, list | tuple) and all(isinstance(row, list | tuple) for row in rows) for rows in codes):
        return None
    try:
        table = np.asarray(codes)
    except ValueError:
        return None
    return table if table.ndim > 2 else None


def _split(spec: CodecSpec, codes: Array) -> list[Array]:
    shape, usable = codes.shape, spec.usable_codebooks
    while codes.ndim > 3 and codes.shape[0] == 1:  # chunk axis of transformers, which has length 1
        codes = codes[0]
    if codes.ndim == 2:
        if codes.shape[0] not in usable:
            raise _unknown(spec, shape, codes, "codes.T")
        return list(codes[:, None])
    if codes.ndim != 3:
        raise InvalidTokens(
            f"codes have shape {shape}; expected (codebooks, frames), (codebooks, streams, frames) or (1, codebooks, frames). "
            "Use decode_tokens for flat tokens"
        )
    first, second, _ = codes.shape
    codebooks_first = first in usable and (first > 1 or second == 1)
    batch_first = second in usable and (first == 1 or (second > 1 and spec.channels == 1))
    if codebooks_first and batch_first and second > 1 and first != spec.num_codebooks:
        raise InvalidTokens(
            f"codes of shape {shape} are ambiguous: {first} codebooks of {second} streams, or {second} codebooks of {first} "
            "streams. Pass list(codes) for the former, list(codes.swapaxes(0, 1)) for the latter, and recordings of a batch "
            "one by one"
        )
    if codebooks_first:
        return list(codes)
    if batch_first:
        return list(codes.swapaxes(0, 1))
    if first > 1 and second in usable:
        raise InvalidTokens(
            f"codes of shape {shape} look like a batch of {first}; {spec.name} takes recordings one by one: codes[0] and so on"
        )
    raise _unknown(spec, shape, codes, "codes.swapaxes(-1, -2)")


def _unknown(spec: CodecSpec, shape: tuple[int, ...], codes: Array, turned: str) -> InvalidTokens:
    asked = f" Are they (frames, codebooks)? Then pass {turned}." if codes.shape[-1] in spec.usable_codebooks else ""
    way = " A list of one array per codebook is never ambiguous." if codes.ndim > 2 else ""
    return InvalidTokens(f"codes of shape {shape} do not have the {spec.codebook_numbers} codebooks of {spec.name}.{asked}{way}")
