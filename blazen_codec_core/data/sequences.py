"""Sequences of ids for language models, of crops of recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidInput, InvalidTokens
from ..tokens.layouts import LayoutWriter, TableLayout, TokenLayout
from ..tokens.layouts.base import Ids, check_one_stream
from ..tokens.tokens import CodecTokens
from ..validation import as_array

Targets = NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """A sequence of ids of one recording.

    Attributes:
        ids: Int64 `(steps,)`, or `(steps, slots)` if slots share their ids or start late, and without a layout.
        targets: Bool, of the same shape: the ids that a model learns to predict.
        columns: Values of the dataset's other columns, by name.
    """

    ids: Tensor
    targets: Tensor
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.ids)

    def prompted(self, prompt: Any) -> Sample:
        """Return the sample with ids before it that are not learnt, such as a text.

        Args:
            prompt: Integers `(steps,)`, or `(steps, slots)` if the sample has slots.

        Raises:
            InvalidInput: The prompt has another type or shape.
        """
        array = as_array(prompt, "the prompt cannot be an array", InvalidInput)
        shape = tuple(self.ids.shape[1:])
        if (array.dtype.kind not in "iu" and array.size) or array.shape[1:] != shape or not array.ndim:
            raise InvalidInput(
                f"the prompt is {array.dtype} of shape {array.shape}; expected integers of shape {('steps', *shape)}"
            )
        ids = torch.tensor(array.astype(np.int64))
        return replace(
            self, ids=torch.cat([ids, self.ids]), targets=torch.cat([torch.zeros_like(ids, dtype=torch.bool), self.targets])
        )


def sequence(
    tokens: CodecTokens,
    layout: TokenLayout | None = None,
    *,
    specials: bool = False,
    ends: bool = True,
    columns: Mapping[str, Any] | None = None,
) -> Sample:
    """Convert tokens of one stream to a sample.

    Slots that share their ids, or start late, are columns of the ids; other layouts are one sequence.

    Args:
        tokens: Tokens.
        layout: Order of the ids; `None` for the codes of each frame.
        specials: Write the ids that begin and end a sequence, too. Models learn those of the end.
        ends: The recording ends with these tokens. Otherwise nothing is written after the last whole step.
        columns: Values of other columns.

    Raises:
        InvalidTokens: The layout cannot hold the tokens.
    """
    if layout is None:
        ids, targets = _frames(tokens)
    elif isinstance(layout, TableLayout):
        ids, targets = _table(tokens, layout, specials, ends)
    else:
        ids = layout.pack(tokens, specials=True) if specials else layout.pack(tokens)
        targets = np.ones(ids.shape, bool)
    return Sample(torch.from_numpy(ids), torch.from_numpy(targets), columns or {})


def _frames(tokens: CodecTokens) -> tuple[Ids, Targets]:
    check_one_stream(tokens)
    if len(set(tokens.strides)) > 1:
        raise InvalidTokens(f"codebooks have strides {tokens.strides}, so frames have no rows of codes. Name a layout")
    ids = np.concatenate([code.T for code in tokens.codes], axis=1).astype(np.int64)
    return ids, np.ones(ids.shape, bool)


def _table(tokens: CodecTokens, layout: TableLayout, specials: bool, ends: bool) -> tuple[Ids, Targets]:
    """Return the ids of a table, and which of them are learnt: codes, and the first special after them, which is the end."""
    vocabulary = layout.vocabulary_of(tokens.strides, tokens.codebook_size)
    writer = LayoutWriter(vocabulary, specials)
    ids = writer.push_last(tokens) if ends else writer.push(tokens)
    fills = specials and vocabulary.fillers.begin is not None
    if vocabulary.identifies and not vocabulary.delay:
        targets = np.ones(ids.shape, bool)
        targets[: len(vocabulary.slots) if fills else specials and vocabulary.markers.begin is not None] = False
        return ids, targets
    if vocabulary.markers.ids:
        raise InvalidTokens(f"layout {layout.name} has markers between steps of {len(vocabulary.slots)} ids, which are no table")
    table = ids.reshape(-1, len(vocabulary.slots))
    groups = np.arange(len(table))[:, None] - [slot.delay for slot in vocabulary.slots] - fills
    return table, (groups >= 0) & (groups < tokens.frames // vocabulary.frames_per_group + ends)
