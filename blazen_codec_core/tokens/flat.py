"""Flat form of the trait: the tokens of one stream, codebook after codebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidTokens
from ..validation import as_array


def integers(values: Any, what: str) -> NDArray[Any]:
    """Convert a sequence of integers to an array; raise `InvalidTokens` for anything else."""
    array = as_array(values, f"{what} cannot be an array")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidTokens(f"{what} are {array.dtype} of shape {array.shape}; expected integers of shape (count,)")
    return array


def flatten(codes: Sequence[NDArray[Any]]) -> NDArray[np.uint32]:
    """Concatenate codebooks: `[c0[0], c0[1], …, c1[0], …]`, uint32."""
    return np.concatenate([np.asarray(code).reshape(-1) for code in codes]).astype(np.uint32)


def unflatten(flat: Any, strides: Sequence[int]) -> list[NDArray[np.int64]]:
    """Invert `flatten`.

    With L the least common multiple of the strides, a group of L frames has `sum(L / stride)` tokens. The number of tokens must
    be a positive multiple of that.

    Raises:
        InvalidTokens: The number of tokens is wrong, or the values are not integers.
    """
    array = integers(flat, "flat tokens")
    group = math.lcm(*strides)
    step = sum(group // stride for stride in strides)
    if not array.size or array.size % step:
        raise InvalidTokens(f"there are {array.size} flat tokens; strides {tuple(strides)} need a positive multiple of {step}")
    frames = array.size // step * group
    ends = np.cumsum([frames // stride for stride in strides])
    return [part.astype(np.int64) for part in np.split(array, ends[:-1])]
