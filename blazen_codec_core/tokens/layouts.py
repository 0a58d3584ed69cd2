"""Layouts: orders in which language models read tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidTokens
from .flat import integers
from .tokens import CodecTokens

if TYPE_CHECKING:
    from ..specs import CodecSpec

Ragged = Literal["refuse", "drop"]


class TokenLayout(ABC):
    """Mapping between the tokens of one stream and a sequence of ids.

    Attributes:
        name: Name for look-ups.
        description: One-line description.
    """

    name: str
    description: str

    @abstractmethod
    def pack(self, tokens: CodecTokens) -> NDArray[np.int64]:
        """Convert tokens to ids, int64 `(count,)`.

        Raises:
            InvalidTokens: The layout cannot hold the tokens.
        """

    @abstractmethod
    def unpack(self, ids: Any, spec: CodecSpec, *, num_codebooks: int | None = None, ragged: Ragged = "refuse") -> CodecTokens:
        """Convert ids to tokens.

        Args:
            ids: Sequence of ids.
            spec: Model of the tokens.
            num_codebooks: Number of codebooks in the ids; the model's default if not given.
            ragged: `refuse` or `drop` an incomplete frame at the end, as a truncated generation leaves it.

        Raises:
            InvalidTokens: An id is out of its slot's range, or the last frame is incomplete and `ragged` is `refuse`.
        """


def slots(strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return the token order in a group of frames, as (codebook, index in the group).

    The order is depth first: a coarse token precedes the finer tokens in its span. Strides (4, 2, 1) give
    `c0[0] c1[0] c2[0] c2[1] c1[1] c2[2] c2[3]`; equal strides give one codebook after the other.

    Raises:
        InvalidTokens: The strides do not nest.
    """
    if any(coarse % fine for coarse, fine in pairwise(strides)):
        raise InvalidTokens(f"strides {tuple(strides)} do not nest, so they cannot be interleaved")
    order: list[tuple[int, int]] = []

    def visit(book: int, place: int) -> None:
        order.append((book, place))
        if book + 1 < len(strides):
            inside = strides[book] // strides[book + 1]
            for child in range(place * inside, (place + 1) * inside):
                visit(book + 1, child)

    for place in range(math.lcm(*strides) // strides[0]):
        visit(0, place)
    return order


class InterleavedLayout(TokenLayout):
    """Layout by frames or groups of frames: slot j of a group holds `base + j * codebook_size + code`."""

    def __init__(self, name: str, description: str, base: int = 0) -> None:
        self.name, self.description, self.base = name, description, base

    def pack(self, tokens: CodecTokens) -> NDArray[np.int64]:
        check_one_stream(tokens)
        order = slots(tokens.strides)
        group = math.lcm(*tokens.strides)
        columns = [code.reshape(tokens.frames // group, group // s) for code, s in zip(tokens.codes, tokens.strides, strict=True)]
        table = np.stack([columns[book][:, place] for book, place in order], axis=1).astype(np.int64)
        return (table + self._offsets(len(order), tokens.codebook_size)).reshape(-1)

    def unpack(self, ids: Any, spec: CodecSpec, *, num_codebooks: int | None = None, ragged: Ragged = "refuse") -> CodecTokens:
        strides = spec.strides[: spec.codebooks_for(num_codebooks=num_codebooks)]
        order = slots(strides)
        table = as_table(ids, len(order), ragged)
        codes = table - self._offsets(len(order), spec.codebook_size)
        wrong = np.argwhere((codes < 0) | (codes >= spec.codebook_size))
        if wrong.size:
            group, slot = (int(i) for i in wrong[0])
            low = self.base + slot * spec.codebook_size
            raise InvalidTokens(
                f"id {table[group, slot]} at {group * len(order) + slot} is outside slot {slot}; "
                f"expected {low} … {low + spec.codebook_size - 1}"
            )
        per_book = [np.array([slot for slot, (b, _) in enumerate(order) if b == book]) for book in range(len(strides))]
        return tokens_of(spec, [codes[:, chosen].reshape(-1) for chosen in per_book])

    def _offsets(self, count: int, size: int) -> NDArray[np.int64]:
        return self.base + np.arange(count, dtype=np.int64) * size


class DelayLayout(TokenLayout):
    """Delay pattern: codebook k starts k steps late (Copet et al. 2023, "Simple and controllable music generation", figure 1).

    A step has one id per codebook, so the ids reshape to `(steps, codebooks)` with `steps = frames + codebooks - 1`. Before a
    codebook starts and after it ends, the id is `codebook_size`, which is not a code.

        c0[0]  c0[1]  c0[2]    -      -
          -    c1[0]  c1[1]  c1[2]    -
          -      -    c2[0]  c2[1]  c2[2]

    `unpack` skips a first step without codes, such as a language model's start token.
    """

    def __init__(self, name: str, description: str) -> None:
        self.name, self.description = name, description

    def pack(self, tokens: CodecTokens) -> NDArray[np.int64]:
        check_one_stream(tokens)
        self._check_rates(tokens.strides)
        books, frames = tokens.num_codebooks, tokens.frames
        table = np.full((frames + books - 1 if frames else 0, books), tokens.codebook_size, np.int64)
        for book, code in enumerate(tokens.codes):
            table[book : book + frames, book] = code[0]
        return table.reshape(-1)

    def unpack(self, ids: Any, spec: CodecSpec, *, num_codebooks: int | None = None, ragged: Ragged = "refuse") -> CodecTokens:
        books = spec.codebooks_for(num_codebooks=num_codebooks)
        self._check_rates(spec.strides)
        table = as_table(ids, books, ragged)
        none = spec.codebook_size
        if (table[0] == none).all():
            table = table[1:]
        steps = table.shape[0]
        filled = np.stack([table[min(book, steps) : max(steps - books + 1 + book, 0), book] != none for book in range(books)])
        whole = int(filled.all(axis=0).cumprod().sum())
        if ragged == "drop":
            table = table[: whole + books - 1].copy()
            for book in range(books):  # codes of incomplete frames
                table[book + whole :, book] = none
        elif whole + books - 1 != steps:
            raise InvalidTokens(f"{steps} steps of {books} codebooks end inside a frame; ragged='drop' keeps {whole} frames")
        if not whole:
            raise InvalidTokens(f"{steps} steps of {books} codebooks have no complete frame")
        codes = [table[book : book + whole, book].copy() for book in range(books)]
        for book in range(books):
            table[book : book + whole, book] = none
        wrong = np.argwhere(table != none)
        if wrong.size:
            step, book = (int(i) for i in wrong[0])
            raise InvalidTokens(f"codebook {book} has id {table[step, book]} at step {step}; expected {none}, no code")
        return tokens_of(spec, codes)

    def _check_rates(self, strides: Sequence[int]) -> None:
        if len(set(strides)) > 1:
            raise InvalidTokens(f"codebooks have strides {tuple(strides)}; a delay layout needs equal strides")


def check_one_stream(tokens: CodecTokens) -> None:
    """Raise `InvalidTokens` if a sequence of ids cannot represent the tokens."""
    if not isinstance(tokens, CodecTokens):
        raise InvalidTokens(f"tokens are {type(tokens).__name__}; expected CodecTokens")
    if tokens.streams != 1:
        raise InvalidTokens(f"tokens have {tokens.streams} streams; a sequence holds one. Pack .stream(0) and so on")
    if tokens.scales is not None:
        raise InvalidTokens(
            "a sequence of ids cannot hold scales. Keep tokens.scales, pack dataclasses.replace(tokens, scales=None), "
            "and restore the scales after unpacking"
        )
    if tokens.extra:
        raise InvalidTokens(f"a sequence of ids cannot hold {', '.join(tokens.extra)}, which the decoder needs")


def as_table(ids: Any, width: int, ragged: Ragged) -> NDArray[np.int64]:
    """Reshape ids `(count,)` to `(count / width, width)`; raise `InvalidTokens` if there is no complete row."""
    array = integers(ids, "ids")
    extra = array.size % width
    if extra and ragged == "refuse":
        raise InvalidTokens(f"{array.size} ids are not a multiple of {width}; ragged='drop' drops the last {extra}")
    table = array[: array.size - extra].reshape(-1, width).astype(np.int64)
    if not table.size:
        raise InvalidTokens(f"there is no complete frame of {width} ids")
    return table


def tokens_of(spec: CodecSpec, codes: list[NDArray[np.int64]]) -> CodecTokens:
    return CodecTokens.from_codes(spec, codes)
