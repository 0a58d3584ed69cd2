"""Writing tokens as ids, part by part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, InvalidTokens
from ..tokens import CodecTokens
from .base import Ids, check_one_stream
from .vocabulary import Vocabulary, tail


class LayoutWriter:
    """Writer of the tokens of one stream as ids; memory is bounded by the layout's delay.

    What `push` has returned so far is a prompt: whole steps, in which every slot that has started has a code.

    Attributes:
        vocabulary: Ids of the tokens.
    """

    def __init__(self, vocabulary: Vocabulary, specials: bool) -> None:
        self.vocabulary = vocabulary
        self._specials = specials
        begin = -1 if vocabulary.fillers.begin is None else vocabulary.fillers.begin
        self._groups = np.full((vocabulary.delay, len(vocabulary.slots)), begin, np.int64)
        self._begun = self._finished = False

    def push(self, tokens: CodecTokens) -> Ids:
        """Write the next tokens; return the ids of all complete steps, int64 `(count,)`.

        Raises:
            InvalidTokens: The tokens have several streams, scales, or another model than those before.
            InvalidInput: The writer is finished.
        """
        groups = self._table(self._check(tokens))
        return np.concatenate([self._beginning() if len(groups) else np.empty(0, np.int64), self._steps(groups)])

    def finish(self) -> Ids:
        """Return the ids of the remaining steps, int64 `(count,)`; with `specials`, also those of the end.

        Raises:
            InvalidInput: The writer is finished.
        """
        self._check_open()
        self._finished = True
        if not self._begun and not self._specials:
            return np.empty(0, np.int64)
        ids = self._beginning()
        vocabulary, fillers = self.vocabulary, self.vocabulary.fillers
        after = [tail(fillers, number) for number in range(vocabulary.delay + (self._specials and fillers.end is not None))]
        ends = [id for id in after if id is not None] if vocabulary.end_code is None else [vocabulary.end_code] * self._specials
        rows = np.repeat(np.array(ends, np.int64)[:, None], len(vocabulary.slots), axis=1)
        marker = [vocabulary.markers.end] if self._specials and vocabulary.markers.end is not None else []
        return np.concatenate([ids, self._steps(rows), np.array(marker, np.int64)])

    def push_last(self, tokens: CodecTokens) -> Ids:
        """Write the last tokens; return all remaining ids, int64 `(count,)`."""
        return np.concatenate([self.push(tokens), self.finish()])

    def _check_open(self) -> None:
        if self._finished:
            raise InvalidInput("the writer is finished; open another one for another recording")

    def _check(self, tokens: CodecTokens) -> CodecTokens:
        self._check_open()
        check_one_stream(tokens)
        expected = (self.vocabulary.strides, self.vocabulary.codebook_size)
        if (tokens.strides, tokens.codebook_size) != expected:
            raise InvalidTokens(
                f"tokens have strides {tokens.strides} and {tokens.codebook_size} codes; the writer is for strides {expected[0]} "
                f"and {expected[1]} codes"
            )
        return tokens

    def _table(self, tokens: CodecTokens) -> NDArray[np.int64]:
        """Return the codes of each slot, `(groups, slots)`."""
        frames = self.vocabulary.frames_per_group
        groups = tokens.frames // frames
        columns = [code.reshape(groups, frames // stride) for code, stride in zip(tokens.codes, tokens.strides, strict=True)]
        return np.stack([columns[slot.codebook][:, slot.token] for slot in self.vocabulary.slots], axis=1).astype(np.int64)

    def _beginning(self) -> Ids:
        """Return the ids before the first step, once."""
        ids = self.vocabulary.beginning if self._specials and not self._begun else []
        self._begun = True
        return np.array(ids, np.int64)

    def _steps(self, groups: NDArray[np.int64]) -> Ids:
        """Delay the next groups; return the ids of as many steps."""
        table, count = np.concatenate([self._groups, groups]), len(groups)
        delay = self.vocabulary.delay
        self._groups = table[count:]
        columns = [table[delay - slot.delay :][:count, number] for number, slot in enumerate(self.vocabulary.slots)]
        return (np.stack(columns, axis=1) + self.vocabulary.firsts).reshape(-1)
