"""Reading ids as a language model writes them."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InvalidInput
from ..tokens import CodecTokens
from .assembly import GroupAssembler
from .base import Errors, Ragged
from .framing import StepFramer, Table
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ...specs import CodecSpec


class LayoutReader:
    """Reader of the ids of one stream, in any pieces; memory is bounded by the layout's delay.

    Begin, end and padding ids are told apart from codes. Ids after the end are ignored. Where an id says in which slot it
    belongs, missing and doubled ids are noticed, and reading goes on with the next whole step. Where it does not, ids are
    counted, and only those that are no ids of their slot are noticed. A push that raises changes nothing.

    Attributes:
        vocabulary: Ids of the tokens.
    """

    def __init__(self, vocabulary: Vocabulary, spec: CodecSpec, errors: Errors) -> None:
        check_choice("errors", errors, ("raise", "drop", "repeat"))
        self.vocabulary = vocabulary
        self._spec, self._errors = spec, errors
        self._framer, self._assembler = StepFramer(vocabulary, errors == "raise"), GroupAssembler(vocabulary, errors)
        self._held: Table = np.empty((0, len(vocabulary.slots)), np.int64)
        self._finished = False
        books = range(len(vocabulary.strides))
        self._columns = [[n for n, slot in enumerate(vocabulary.slots) if slot.codebook == book] for book in books]
        segment = spec.segment.length // spec.hop_length if spec.segment else vocabulary.frames_per_group
        self._unit = segment // vocabulary.frames_per_group
        self._nothing = self._made(self._held)

    @property
    def lost(self) -> int:
        """Number of groups that were wrong or incomplete, and so were dropped or repeated."""
        return self._assembler.lost

    @property
    def ended(self) -> bool:
        """True once the end was read."""
        return self._framer.ended or self._assembler.ended

    def push(self, ids: Any) -> CodecTokens:
        """Read the next ids; return the tokens of all complete groups, of which there may be none.

        Codecs that have segments get whole segments.

        Args:
            ids: An id, a sequence, array or tensor of ids, steps `(steps, slots)`, or text if the layout has a text form.

        Raises:
            InvalidTokens: `ids` are no integers, or `errors` is `raise` and one is wrong.
            InvalidInput: The reader is finished, or the layout has no text form.
        """
        self._check_open()
        framer, assembler, open_before = copy.copy(self._framer), copy.copy(self._assembler), not self.ended
        numbers = framer.ids(ids)
        groups = assembler.groups(framer.steps(numbers)) if open_before else self._held[:0]
        if open_before and not assembler.ended:
            steps = framer.cut() if framer.ended else None
            check_steps(framer)
            if steps is not None:
                assembler.close(steps, self._errors)
        self._framer, self._assembler = framer, assembler
        held = np.concatenate([self._held, groups]) if len(self._held) else groups
        whole = len(held) // self._unit * self._unit
        self._held = held[whole:]
        return self._tokens(held[:whole])

    def finish(self, *, ragged: Ragged | None = None) -> CodecTokens:
        """End the sequence, if its end was not read; return the tokens of an incomplete segment, of codecs that have segments.

        Args:
            ragged: `refuse` or `drop` an incomplete group; by default `drop`, unless `errors` is `raise`.

        Raises:
            InvalidTokens: A group is incomplete, and is refused.
            InvalidInput: The reader is finished.
        """
        self._check_open()
        if ragged is not None:
            check_choice("ragged", ragged, ("refuse", "drop"))
        errors: Errors = self._errors if ragged is None else "raise" if ragged == "refuse" else "drop"
        framer, assembler = dataclasses.replace(self._framer, strict=errors == "raise"), copy.copy(self._assembler)
        if not self.ended:
            steps = framer.cut()
            check_steps(framer)
            assembler.close(steps, errors)
        self._framer, self._assembler, self._finished = framer, assembler, True
        return self._tokens(self._held)

    def _check_open(self) -> None:
        if self._finished:
            raise InvalidInput("the reader is finished; open another one for another sequence")

    def _tokens(self, groups: Table) -> CodecTokens:
        return self._made(groups) if len(groups) else self._nothing  # most pushes of a single id complete no group

    def _made(self, groups: Table) -> CodecTokens:
        return CodecTokens.from_codes(self._spec, [groups[:, columns].reshape(-1) for columns in self._columns])


def check_steps(framer: StepFramer) -> None:
    """Raise the error that a framer stopped at, unless the sequence had ended before."""
    if framer.error:
        raise framer.error


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InvalidInput` unless a value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidInput(f"{name} is {value!r}; expected {', '.join(choices[:-1])} or {choices[-1]}")
