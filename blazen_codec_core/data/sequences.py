"""Sequences of ids for language models, of crops of recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, InvalidTokens
from ..tokens.layouts import DelayLayout, TokenLayout, check_one_stream
from ..tokens.tokens import CodecTokens
from ..validation import as_array, is_int


@dataclass(frozen=True)
class Sample:
    """A sequence of ids of one recording.

    Attributes:
        ids: Int64 `(steps,)`, or `(steps, codebooks)` for delay patterns and without a layout.
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
            prompt: Integers `(steps,)`, or `(steps, codebooks)` if the sample has codebooks.

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


@dataclass(frozen=True)
class Sequencer:
    """Conversion of tokens to a `Sample`.

    Attributes:
        layout: Order of the ids; `None` for the codes of each frame.
        begin: Id before every sequence, which is not learnt; `None` for none.
        end: Id after the end of a recording, which is learnt; `None` for none.
    """

    layout: TokenLayout | None = None
    begin: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and not isinstance(self.layout, TokenLayout):
            raise InvalidInput(f"layout is {self.layout!r}; expected a name or a TokenLayout")
        for name in ("begin", "end"):
            if (value := getattr(self, name)) is not None and (not is_int(value) or value < 0):
                raise InvalidInput(f"{name} is {value!r}; expected an id, at least 0")

    def sample(self, tokens: CodecTokens, ends: bool, columns: Mapping[str, Any]) -> Sample:
        """Convert tokens of one stream to a sample.

        Args:
            tokens: Tokens.
            ends: The recording ends with these tokens.
            columns: Values of other columns.

        Raises:
            InvalidTokens: The layout cannot hold the tokens.
        """
        if self.layout is None:
            ids = _frames(tokens)
        elif isinstance(self.layout, DelayLayout):
            ids = self.layout.pack(tokens).reshape(-1, tokens.num_codebooks)
        else:
            ids = self.layout.pack(tokens)
        targets = _learnt_delays(tokens, ends) if isinstance(self.layout, DelayLayout) else np.ones(ids.shape, bool)
        before, after = ([] if self.begin is None else [self.begin]), ([self.end] if ends and self.end is not None else [])
        return Sample(
            torch.from_numpy(np.concatenate([_like(before, ids), ids, _like(after, ids)])),
            torch.from_numpy(np.concatenate([_like(before, targets, 0), targets, _like(after, targets, 1)])),
            columns,
        )


def _frames(tokens: CodecTokens) -> np.ndarray[Any, np.dtype[np.int64]]:
    check_one_stream(tokens)
    if len(set(tokens.strides)) > 1:
        raise InvalidTokens(f"codebooks have strides {tokens.strides}, so frames have no rows of codes. Name a layout")
    return np.concatenate([code.T for code in tokens.codes], axis=1).astype(np.int64)


def _learnt_delays(tokens: CodecTokens, ends: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the ids of a delay pattern that are learnt: codes, and after the end of a recording, that there is none."""
    frames, books = tokens.frames, tokens.num_codebooks
    times = np.arange(frames + books - 1 if frames else 0)[:, None] - np.arange(books)
    return (times >= 0) & ((times < frames) | ends)


def _like(values: Sequence[int], ids: np.ndarray[Any, Any], learnt: int | None = None) -> np.ndarray[Any, Any]:
    """Return one step of each value (or of `learnt`), with the codebooks and type of `ids`."""
    return (
        np.stack([np.full(ids.shape[1:], value if learnt is None else learnt, ids.dtype) for value in values])
        if values
        else ids[:0]
    )
