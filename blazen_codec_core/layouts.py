"""Tokens in the orders that language models use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidTokens

if TYPE_CHECKING:
    from .specs import CodecSpec
    from .tokens import CodecTokens

Ragged = Literal["refuse", "drop"]


class TokenLayout(ABC):
    """A way to write the tokens of one stream as one sequence of ids, and back.

    Attributes:
        name: What it is looked up by.
        description: One line.
    """

    name: str
    description: str

    @abstractmethod
    def pack(self, tokens: CodecTokens) -> NDArray[np.int64]:
        """Ids, int64 `(count,)`.

        Raises:
            InvalidTokens: This layout cannot hold these tokens.
        """

    @abstractmethod
    def unpack(self, ids: Any, spec: CodecSpec, *, ragged: Ragged = "refuse") -> CodecTokens:
        """The tokens that ids stand for.

        Args:
            spec: The model the tokens belong to.
            ragged: What to do with an incomplete frame at the end, as a language model cut short leaves it.

        Raises:
            InvalidTokens: An id is out of its slot's range, or the last frame is incomplete and `ragged` is `refuse`.
        """


def flatten(codes: Sequence[NDArray[Any]]) -> NDArray[np.uint32]:
    """Codebook after codebook: `[c0[0], c0[1], …, c1[0], …]`, uint32."""
    return np.concatenate([np.asarray(code).reshape(-1) for code in codes]).astype(np.uint32)


def unflatten(flat: Any, strides: Sequence[int]) -> list[NDArray[np.int64]]:
    """The inverse of `flatten`, for codebooks whose tokens cover `strides` frames.

    With L the least common multiple of the strides, a group of L frames has `sum(L / stride)` tokens, and the count must
    be a positive multiple of that.

    Raises:
        InvalidTokens: It is not, or the values are not integers.
    """
    array = np.asarray(flat)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidTokens(f"flat tokens are integers of shape (count,), not {array.dtype} {array.shape}")
    group = math.lcm(*strides)
    step = sum(group // stride for stride in strides)
    if not array.size or array.size % step:
        raise InvalidTokens(f"{array.size} flat tokens; with strides {tuple(strides)} it must be a positive multiple of {step}")
    frames = array.size // step * group
    ends = np.cumsum([frames // stride for stride in strides])
    return [part.astype(np.int64) for part in np.split(array, ends[:-1])]
