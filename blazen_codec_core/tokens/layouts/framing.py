"""Framing: from ids as they come to whole steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, InvalidTokens
from ...validation import as_array
from .base import Ids
from .text import FOREIGN
from .vocabulary import Vocabulary

Table = NDArray[np.int64]
BROKEN = -1
"""Stands for an id that is wrong in its slot. Other values of a step are codes and fillers."""


def among(values: Table, choices: tuple[int | None, ...]) -> NDArray[np.bool_]:
    """Return which values are one of a few choices; for so few it is faster than `np.isin`."""
    found = np.zeros(values.shape, bool)
    for choice in choices:
        if choice is not None:
            found |= values == choice
    return found


@dataclass
class StepFramer:
    """Groups ids to steps, in any pieces.

    If ids say in which slot they belong, a step is a run of ids of slots 0, 1 and so on. Ids that are in no such run stand for as
    many broken steps as their number says, rounded, so one missing or doubled id costs one step; before the first whole step, as
    those of a prompt, they stand for two at most. Otherwise ids are counted.

    Copies share nothing that changes: all fields are replaced, never written to.

    Attributes:
        vocabulary: Ids of the layout.
        strict: Stop at the first wrong id.
        row: Codes of the current step.
        skipped: Ids since the last step that are in no run.
        position: Number of ids so far.
        text: Beginning of an id in text.
        foreign: The last text was no id.
        begun: There was a whole step.
        ended: The end marker was read.
        error: Reason for the stop.
    """

    vocabulary: Vocabulary
    strict: bool
    row: tuple[int, ...] = ()
    skipped: int = 0
    position: int = 0
    text: str = ""
    foreign: bool = False
    begun: bool = False
    ended: bool = False
    error: InvalidTokens | None = None

    def __post_init__(self) -> None:
        self._known = np.zeros(self.vocabulary.width, bool)
        self._known[: self.vocabulary.codebook_size] = True
        self._known[list(self.vocabulary.fillers.ids)] = True

    def ids(self, ids: Any) -> Ids:
        """Convert what a caller pushes to ids `(count,)`, with `FOREIGN` for text that is none."""
        if isinstance(ids, str) or (isinstance(ids, list | tuple) and ids and all(isinstance(text, str) for text in ids)):
            return self._parsed("".join(ids))
        array, width = as_array(ids, "ids cannot be an array"), len(self.vocabulary.slots)
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != width) or (array.size and array.dtype.kind not in "iu"):
            raise InvalidTokens(
                f"ids are {array.dtype} of shape {array.shape}; expected integers of shape (count,) or (steps, {width})"
            )
        if array.dtype == np.uint64:
            array = np.minimum(array, np.uint64(np.iinfo(np.int64).max))
        return array.reshape(-1).astype(np.int64)

    def _parsed(self, text: str) -> Ids:
        if self.vocabulary.text is None:
            raise InvalidInput(f"layout {self.vocabulary.layout} has no text form of ids; push the ids themselves")
        ids, self.text = self.vocabulary.text.parse(self.text + text)
        if ids:
            goes_on, self.foreign = self.foreign and ids[0] == FOREIGN, ids[-1] == FOREIGN
            ids = ids[1:] if goes_on else ids
        return np.array(ids, np.int64)

    def steps(self, ids: Ids) -> Table:
        """Return the codes and fillers of all steps that the next ids complete, `(steps, slots)`."""
        markers = self.vocabulary.markers
        positions = self.position + np.arange(ids.size)
        self.position += ids.size
        if not among(ids, markers.ids).any():
            return self._framed(ids, positions)
        kept = ~among(ids, (markers.padding, *markers.others))
        ids, positions = ids[kept], positions[kept]
        steps, start = [np.empty((0, len(self.vocabulary.slots)), np.int64)], 0
        for stop in [*np.flatnonzero(among(ids, (markers.begin, markers.end))).tolist(), ids.size]:
            if self.ended or self.error:
                break
            steps.append(self._framed(ids[start:stop], positions[start:stop]))
            start = stop + 1
            if stop < ids.size:
                self.ended = bool(ids[stop] == markers.end)
                steps += [] if self.ended else [self.cut(counted=self.begun)]
        return np.concatenate(steps)

    def _framed(self, ids: Ids, positions: Ids) -> Table:
        vocabulary, count = self.vocabulary, len(self.vocabulary.slots)
        expected = (len(self.row) + np.arange(ids.size)) % count
        slots = np.searchsorted(vocabulary.firsts, ids, "right") - 1 if vocabulary.identifies else expected.copy()
        codes = ids - vocabulary.firsts[np.maximum(slots, 0)]
        wrong = (
            (slots < 0)
            | (codes < 0)
            | (codes >= vocabulary.width)
            | ~self._known[np.minimum(np.maximum(codes, 0), vocabulary.width - 1)]
        )
        codes[wrong] = BROKEN
        misplaced = wrong | (slots != expected)
        if self.strict and misplaced.any():
            first = int(np.argmax(misplaced))
            slot = vocabulary.slots[expected[first]]
            self.error = InvalidTokens(
                f"id {ids[first]} at {positions[first]} is outside slot {expected[first]}; "
                f"expected {slot.first} … {slot.first + vocabulary.codebook_size - 1}"
            )
            codes, slots, misplaced = codes[:first], slots[:first], misplaced[:first]
        if vocabulary.identifies and (self.skipped or misplaced.any()):
            return self._resynchronized(np.where(codes == BROKEN, BROKEN, slots).tolist(), codes.tolist())
        flat = np.concatenate([np.array(self.row, np.int64), codes])
        whole = flat.size // count * count
        self.row, self.begun = tuple(flat[whole:].tolist()), self.begun or whole > 0
        return flat[:whole].reshape(-1, count)

    def _resynchronized(self, slots: list[int], codes: list[int]) -> Table:
        """Frame ids of which some are in no run."""
        steps, count, row = [], len(self.vocabulary.slots), list(self.row)
        for slot, code in zip(slots, codes, strict=True):
            if slot == len(row):
                row.append(code)
            else:
                self.skipped += len(row) + (slot != 0)
                row = [code] if slot == 0 else []
            if self.skipped >= 2 * count:
                steps += [[BROKEN] * count] * self.begun
                self.skipped -= count
            if len(row) == count:
                steps += [[BROKEN] * count] * self._steps_in(self.skipped) + [row]
                row, self.skipped, self.begun = [], 0, True
        self.row = tuple(row)
        return np.array(steps, np.int64).reshape(-1, count)

    def _steps_in(self, ids: int) -> int:
        """Return the number of steps that ids stand for: their number, rounded. Half a step is one, and so are one and a half."""
        count = len(self.vocabulary.slots)
        return (ids + (count // 2 if ids < count else (count - 1) // 2)) // count

    def cut(self, counted: bool = True) -> Table:
        """Give up the current step and skipped ids; return broken steps in their place, `(steps, slots)`."""
        if self.strict and not self.error and (self.row or self.skipped or self.text):
            rest = len(self.row) + self.skipped + bool(self.text)
            self.error = InvalidTokens(
                f"ids are not a multiple of {len(self.vocabulary.slots)}; ragged='drop' drops the last {rest}"
            )
        lost = max(self._steps_in(self.skipped + len(self.row)), int(bool(self.row))) if counted else 0
        self.row, self.skipped = (), 0
        return np.full((lost, len(self.vocabulary.slots)), BROKEN, np.int64)
