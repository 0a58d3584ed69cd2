"""Assembly: from steps to the groups of frames whose codes they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidTokens
from .base import Errors
from .framing import BROKEN, Table, among
from .vocabulary import Vocabulary, tail

Mask = NDArray[np.bool_]


def every(mask: Mask) -> Mask:
    """Return for which groups a mask `(groups, slots)` holds in all slots."""
    return cast(Mask, mask.all(axis=1))


@dataclass
class GroupAssembler:
    """Takes the delays off steps, in any pieces, and tells groups of codes from beginning, end and wrong ones.

    Copies share nothing that changes: all fields are replaced, never written to.

    Attributes:
        vocabulary: Ids of the layout.
        errors: What becomes of a wrong group.
        count: Number of steps so far.
        last: The last group.
        lost: Number of groups that were wrong or incomplete.
        ended: A group of end fillers, or of the end code, was read.
    """

    vocabulary: Vocabulary
    errors: Errors
    count: int = 0
    last: Table | None = None
    lost: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        fillers = self.vocabulary.fillers
        starts = (fillers.begin, fillers.padding, *fillers.others)
        self._ends, self._only_ends = (fillers.end, fillers.padding), () if fillers.end in starts else (fillers.end,)
        first = BROKEN if fillers.begin is None else fillers.begin
        self._steps = np.full((self.vocabulary.delay, len(self.vocabulary.slots)), first, np.int64)

    def groups(self, steps: Table) -> Table:
        """Return the codes of all groups that the next steps complete, `(groups, slots)`."""
        if self.ended or not len(steps):
            return steps[:0]
        groups = self._undelayed(steps)
        good = every((groups >= 0) & (groups < self.vocabulary.codebook_size))
        final = every(among(groups, (self.vocabulary.end_code,)))
        good &= ~final
        if not good.all():
            groups = self._sorted_out(groups, good, final)
        self.last = groups[-1] if len(groups) else self.last
        return groups

    def _undelayed(self, steps: Table) -> Table:
        """Return the groups whose last slot is in the next steps, one per step."""
        table, count = np.concatenate([self._steps, steps]), len(steps)
        self._steps = table[count:]
        self.count += count
        return np.stack([table[slot.delay :][:count, number] for number, slot in enumerate(self.vocabulary.slots)], axis=1)

    def _sorted_out(self, groups: Table, good: Mask, final: Mask) -> Table:
        """Drop fillers before the first group and everything from the end on, and treat wrong groups."""
        begun = np.logical_or.accumulate(good) | (self.last is not None)
        idle = ~begun & every(among(groups, self.vocabulary.fillers.ids)) & ~every(among(groups, self._only_ends))
        stops = ~good & ~idle & (final | every(among(groups, self._ends)))
        number = self.count - self.vocabulary.delay - len(groups)
        if stops.any():
            self.ended, end = True, int(np.argmax(stops))
            groups, good, idle, begun = groups[:end], good[:end], idle[:end], begun[:end]
        broken = ~good & ~idle
        if broken.any() and self.errors == "raise":
            first = int(np.argmax(broken))
            raise self._wrong(groups[first], number + first, bool(begun[first]))
        self.lost += int(broken.sum())
        if self.errors != "repeat" or not len(groups):
            return groups[good]
        source = np.maximum.accumulate(np.where(good, np.arange(len(groups)), -1))
        repeated = groups[source]
        if self.last is not None:
            repeated[source < 0] = self.last
        kept: Table = repeated[(good | broken) & begun]
        return kept

    def _wrong(self, group: Table, number: int, begun: bool) -> InvalidTokens:
        """Return the error for group `number`, which has neither codes nor fillers alone."""
        vocabulary, size = self.vocabulary, self.vocabulary.codebook_size
        codes = (group >= 0) & (group < size)
        early = number < 0 and not begun
        at = int(np.argmax(codes if early else ~codes))
        slot = vocabulary.slots[at]
        codes_of = f"{slot.first} … {slot.first + size - 1}"
        expected = f"{slot.first + (vocabulary.fillers.begin or 0)}, no code" if early else codes_of
        return InvalidTokens(
            f"codebook {slot.codebook} has id {slot.first + group[at]} at step {number + slot.delay}; expected {expected}"
        )

    def close(self, steps: Table, errors: Errors) -> None:
        """Count, or refuse, groups that the last steps leave incomplete."""
        vocabulary = self.vocabulary
        fillers = [tail(vocabulary.fillers, after) for after in range(vocabulary.delay)]
        rows = np.repeat(np.array(fillers, np.int64)[:, None], len(vocabulary.slots), axis=1)
        groups = self._undelayed(np.concatenate([steps, rows]))
        incomplete = int((~every(among(groups, vocabulary.fillers.ids))).sum())
        if errors == "raise" and incomplete:
            done = self.count - vocabulary.delay
            raise InvalidTokens(f"{done} steps end inside a frame; ragged='drop' drops the last {incomplete}")
        self.lost += incomplete
