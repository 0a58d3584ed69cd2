"""Vocabularies: the ids that a layout gives to the tokens of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, InvalidTokens
from ...validation import is_int
from ..flat import integers
from .text import IdText


@dataclass(frozen=True)
class Specials:
    """Special ids, `None` for those that a model does not have.

    Attributes:
        begin: Precedes the codes.
        end: Follows the codes.
        padding: Means nothing.
        others: Further ids to pass over.
    """

    begin: int | None = None
    end: int | None = None
    padding: int | None = None
    others: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(id for id in (self.begin, self.end, self.padding, *self.others) if id is not None)

    def shifted(self, by: int) -> Specials:
        """Return the same with `by` added to each id."""
        begin, end, padding = (None if id is None else id + by for id in (self.begin, self.end, self.padding))
        return Specials(begin, end, padding, tuple(id + by for id in self.others))


class Slot(NamedTuple):
    """A position in a step.

    Attributes:
        codebook: Number of the codebook.
        token: Number of its token in a group of frames.
        delay: Steps by which it starts late.
        first: Id of code 0.
    """

    codebook: int
    token: int
    delay: int
    first: int


class Place(NamedTuple):
    """Meaning of an id: a code of a codebook, in a slot of a step."""

    codebook: int
    slot: int
    code: int


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


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a model's tokens in a `TableLayout`.

    A sequence is a table with one row per step and one column per slot, read row by row. Step `s` has, in each slot, the code of
    group `s - delay`; where there is none, it has a filler. Markers stand between steps.

    Attributes:
        layout: Name of the layout.
        strides: Frames per token of each codebook.
        codebook_size: Codes per codebook.
        slots: Slots of a step, in order.
        fillers: Specials in place of codes, counted from the first id of their slot.
        markers: Specials between steps, as ids.
        end_code: A group of this code in every slot is the end.
        text: Text form of ids, if the model has one.
    """

    layout: str
    strides: tuple[int, ...]
    codebook_size: int
    slots: tuple[Slot, ...]
    fillers: Specials
    markers: Specials
    end_code: int | None
    text: IdText | None

    @property
    def base(self) -> int:
        """Id of code 0 of the first slot."""
        return self.slots[0].first

    @cached_property
    def width(self) -> int:
        """Number of ids of a slot, fillers included."""
        return max([self.codebook_size, *(id + 1 for id in self.fillers.ids)])

    @cached_property
    def size(self) -> int:
        """Smallest vocabulary that has all ids."""
        return 1 + max([*(slot.first + self.width - 1 for slot in self.slots), *self.markers.ids])

    @cached_property
    def beginning(self) -> list[int]:
        """Ids that begin a sequence: the begin marker, or a step of begin fillers."""
        if self.fillers.begin is not None:
            return [slot.first + self.fillers.begin for slot in self.slots]
        return [] if self.markers.begin is None else [self.markers.begin]

    @property
    def ids_per_group(self) -> int:
        return len(self.slots)

    @property
    def frames_per_group(self) -> int:
        return math.lcm(*self.strides)

    @cached_property
    def delay(self) -> int:
        """Steps by which the last slot starts late."""
        return max(slot.delay for slot in self.slots)

    @cached_property
    def identifies(self) -> bool:
        """True if an id says in which slot it belongs, so that missing ids are noticed."""
        firsts = [slot.first for slot in self.slots]
        return all(later - earlier >= self.width for earlier, later in pairwise(firsts))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """All ids that are no codes."""
        return frozenset(self.markers.ids) | {slot.first + id for slot in self.slots for id in self.fillers.ids}

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        return np.array([slot.first for slot in self.slots], np.int64)

    def locate(self, id: int, slot: int | None = None) -> Place | None:
        """Return the codebook, the slot and the code of an id; `None` if it is no code.

        Args:
            id: An id.
            slot: Slot of the id, which layouts with the same ids in several slots need.

        Raises:
            InvalidInput: The slot is missing or does not exist.
        """
        if not is_int(id):
            raise InvalidInput(f"id is {id!r}; expected an integer")
        if slot is None and not self.identifies:
            count = len(self.slots)
            raise InvalidInput(f"slots of {self.layout} share their ids; pass the slot of {id}, its position modulo {count}")
        if slot is not None and (not is_int(slot) or not 0 <= slot < len(self.slots)):
            raise InvalidInput(f"slot is {slot!r}; expected 0 to {len(self.slots) - 1}")
        for number in range(len(self.slots)) if slot is None else [slot]:
            code = id - self.slots[number].first
            if 0 <= code < self.codebook_size:
                return Place(self.slots[number].codebook, number, int(code))
        return None

    def allowed(self, position: int, groups: int | None = None) -> list[range]:
        """Return the ids that may come at a position, as ranges.

        Args:
            position: Number of ids since `beginning`.
            groups: Number of groups, if the first slot has ended; else codes go on, and the end may come.
        """
        if not is_int(position) or position < 0:
            raise InvalidInput(f"position is {position!r}; expected 0 or more")
        if groups is not None and (not is_int(groups) or groups < 0):
            raise InvalidInput(f"groups is {groups!r}; expected 0 or more")
        step, number = divmod(int(position), len(self.slots))
        slot = self.slots[number]
        group = step - slot.delay
        filler = self.fillers.begin
        ids: list[int | None] = []
        if group >= 0 and (groups is None or group < groups):
            ranges = [range(slot.first, slot.first + self.codebook_size)]
            filler = self.fillers.end if number == 0 and groups is None else None
            ids += [self.markers.end] if number == 0 and groups is None else []
        else:
            ranges = []
            if group >= 0:
                filler = tail(self.fillers, group - (groups or 0))
                ids += [self.markers.end] if number == 0 else []
        ids += [None if filler is None else slot.first + filler]
        return ranges + [range(id, id + 1) for id in ids if id is not None]

    def mask(self, position: int, groups: int | None = None) -> NDArray[np.bool_]:
        """Return which ids may come at a position, bool `(size,)`; arguments as for `allowed`."""
        mask = np.zeros(self.size, bool)
        for ids in self.allowed(position, groups):
            mask[ids.start : ids.stop] = True
        return mask

    def to_text(self, ids: Any) -> str:
        """Join the text forms of ids.

        Raises:
            InvalidInput: The model has no text form of ids, or an id has none.
            InvalidTokens: `ids` are no integers.
        """
        if self.text is None:
            raise InvalidInput(f"layout {self.layout} has no text form of ids; pass the ids themselves")
        return "".join(map(self.text.format, integers(ids, "ids").tolist()))


def tail(fillers: Specials, after: int) -> int | None:
    """Return the filler of the `after`-th group after the last one: the end, then padding."""
    choice = (fillers.end, fillers.padding) if after == 0 else (fillers.padding, fillers.end)
    return next((id for id in choice if id is not None), None)
