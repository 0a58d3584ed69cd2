"""Constrained generation: only ids that continue a sequence get probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InvalidInput
from ...validation import check_count
from .framing import Table
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


class LayoutLogitsProcessor:
    """Sets the logits of all ids that may not come next to minus infinity.

    transformers takes it in `generate(logits_processor=LogitsProcessorList([processor]))`. Servers that process one request at a
    time, such as vLLM, call it with the ids generated so far and the logits of one step. It keeps masks between calls, and
    nothing of a sequence.

    Args:
        vocabulary: Ids of the layout, which the model writes one after the other.
        prompt_length: Number of ids before the first code, with the begin marker or the begin step; 0 if calls leave them out.

    Raises:
        InvalidInput: `prompt_length` is negative or no integer.
    """

    def __init__(self, vocabulary: Vocabulary, prompt_length: int = 0) -> None:
        self.vocabulary = vocabulary
        self.prompt_length = check_count("prompt_length", prompt_length, 0, InvalidInput)
        self._masks: dict[tuple[int, str], torch.Tensor] = {}

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Mask the logits of the next id.

        Args:
            input_ids: Ids so far, `(batch, count)`, or `(count,)` with logits of one sequence.
            scores: Logits, `(batch, size)` or `(size,)`.

        Raises:
            InvalidInput: The model's vocabulary is too small for the layout, or there are fewer ids than in the prompt.
        """
        ids = np.asarray(input_ids.tolist() if hasattr(input_ids, "tolist") else input_ids, np.int64)
        rows = np.atleast_2d(ids)[:, self.prompt_length :]
        if ids.shape[-1] < self.prompt_length:
            raise InvalidInput(f"there are {ids.shape[-1]} ids; the prompt has {self.prompt_length}")
        if scores.shape[-1] < self.vocabulary.size:
            raise InvalidInput(
                f"the model has {scores.shape[-1]} ids; layout {self.vocabulary.layout} needs at least {self.vocabulary.size}"
            )
        table = scores.reshape(len(rows), -1).clone()
        for number, row in enumerate(rows):
            ended = self._ended(row)
            if not ended:
                table[number].masked_fill_(self._forbidden(row, scores), -float("inf"))
        return table.reshape(scores.shape)

    def _ended(self, row: Table) -> bool:
        """Tell whether a sequence is complete, after which anything may come."""
        groups = self._groups(row)
        after = groups is not None and len(row) >= (groups + self.vocabulary.delay + 1) * len(self.vocabulary.slots)
        return after or (self.vocabulary.markers.end is not None and bool((row == self.vocabulary.markers.end).any()))

    def _groups(self, row: Table) -> int | None:
        """Return the number of groups, if the first slot has ended."""
        end = self.vocabulary.fillers.end
        if end is None or self.vocabulary.end_code is not None:
            return None
        ends = np.flatnonzero(row[:: len(self.vocabulary.slots)] == self.vocabulary.base + end)
        return int(ends[0]) if ends.size else None

    def _forbidden(self, row: Table, scores: torch.Tensor) -> torch.Tensor:
        import torch

        count, groups = len(self.vocabulary.slots), self._groups(row)
        step, slot = divmod(len(row), count)
        position = slot + count * (min(step, self.vocabulary.delay) if groups is None else step)
        key = (position, f"{scores.device} {scores.shape[-1]}")
        if groups is None and key in self._masks:
            return self._masks[key]
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        allowed[: self.vocabulary.size] = torch.from_numpy(self.vocabulary.mask(position, groups))
        forbidden = (~allowed).to(scores.device)
        if groups is None:
            self._masks[key] = forbidden
        return forbidden
