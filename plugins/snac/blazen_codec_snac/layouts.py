"""SNAC's tokens as one sequence, as Orpheus and other language models are trained on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blazen_codec_core import CodecSpec, CodecTokens, InvalidTokens, TokenLayout
from blazen_codec_core.layouts import Ragged


def slots(strides: Sequence[int]) -> list[tuple[int, int]]:
    """The order of the tokens of one group of frames, as (codebook, place in the group).

    A coarse token comes before the finer ones inside its span, depth first: for strides (4, 2, 1) that is
    `c0[0] c1[0] c2[0] c2[1] c1[1] c2[2] c2[3]`.
    """
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
    """Slot j of a group holds `base + j * codebook_size + code`.

    With three codebooks of strides 4, 2, 1 there are 7 ids a group. Orpheus adds a base of 128266.
    """

    def __init__(self, name: str, base: int) -> None:
        self.name, self.base = name, base
        self.description = f"SNAC codebooks interleaved by time, an offset a slot, from {base}"

    def pack(self, tokens: CodecTokens) -> NDArray[np.int64]:
        if tokens.streams != 1:
            raise InvalidTokens(f"a sequence is of one stream, there are {tokens.streams}: pack .stream(0) and so on")
        order = _order(tokens.strides)
        groups = tokens.frames // math.lcm(*tokens.strides)
        columns = [code.reshape(groups, code.shape[1] // max(groups, 1)) for code in tokens.codes]
        table = np.stack([columns[book][:, place] for book, place in order], axis=1).astype(np.int64)
        return (table + self._offsets(len(order), tokens.codebook_size)).reshape(-1)

    def unpack(self, ids: Any, spec: CodecSpec, *, ragged: Ragged = "refuse") -> CodecTokens:
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InvalidTokens(f"ids are integers of shape (count,), not {array.dtype} {array.shape}")
        order = _order(spec.strides)
        extra = array.size % len(order)
        if extra and ragged == "refuse":
            raise InvalidTokens(f"{array.size} ids are not a multiple of {len(order)}; ragged='drop' leaves the last {extra} out")
        table = array[: array.size - extra].reshape(-1, len(order)).astype(np.int64)
        if not table.size:
            raise InvalidTokens(f"there is no whole frame of {len(order)} ids")
        codes = table - self._offsets(len(order), spec.codebook_size)
        wrong = np.argwhere((codes < 0) | (codes >= spec.codebook_size))
        if wrong.size:
            group, slot = (int(i) for i in wrong[0])
            low = self.base + slot * spec.codebook_size
            raise InvalidTokens(
                f"id {table[group, slot]} at {group * len(order) + slot} is in slot {slot}, "
                f"whose ids are {low} … {low + spec.codebook_size - 1}"
            )
        per_book = [np.array([slot for slot, (b, _) in enumerate(order) if b == book]) for book in range(len(spec.strides))]
        return CodecTokens.from_codes(spec, [codes[:, chosen].reshape(-1) for chosen in per_book])

    def _offsets(self, count: int, size: int) -> NDArray[np.int64]:
        return self.base + np.arange(count, dtype=np.int64) * size


def _order(strides: Sequence[int]) -> list[tuple[int, int]]:
    if any(coarse % fine for coarse, fine in pairwise(strides)):
        raise InvalidTokens(f"strides {tuple(strides)} do not nest, so there is no interleaving of them")
    return slots(strides)
