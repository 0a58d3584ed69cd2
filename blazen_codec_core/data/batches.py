"""Batches of sequences, padded on the right, with labels for a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..validation import is_int
from .sequences import Sample

IGNORED = -100
"""Label that `torch.nn.functional.cross_entropy` ignores."""


@dataclass(frozen=True)
class Batch:
    """Rows of one or several sequences each.

    Attributes:
        inputs: Ids that a model reads, int64 `(batch, steps)`, or `(batch, steps, codebooks)`.
        labels: Ids that a model predicts at each input, of the same shape; `IGNORED` where it learns nothing.
        documents: Number of the sequence in its row from 1 on, int64 `(batch, steps)`; 0 is padding.
        positions: Position in the sequence, int64 `(batch, steps)`.
        rows: Row of each sequence, int64 `(sequences,)`.
        columns: Values of other columns by name, one for each sequence.
    """

    inputs: Tensor
    labels: Tensor
    documents: Tensor
    positions: Tensor
    rows: Tensor
    columns: dict[str, list[Any]]

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each row without padding, int64 `(batch,)`."""
        return (self.documents > 0).sum(1)

    @property
    def attention_mask(self) -> Tensor:
        """Positions that each one attends to, for `scaled_dot_product_attention`: bool `(batch, 1, steps, steps)`.

        A position attends to itself and to earlier ones of its sequence. Without packing, causal attention does the same for all
        but the padding.
        """
        causal = torch.ones(self.inputs.shape[1], self.inputs.shape[1], dtype=torch.bool, device=self.inputs.device).tril()
        return ((self.documents[:, :, None] == self.documents[:, None, :]) & causal)[:, None]

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """Return the batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; `DataLoader(pin_memory=True)` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        inputs, labels, documents, positions, rows = map(
            change, (self.inputs, self.labels, self.documents, self.positions, self.rows)
        )
        return Batch(inputs, labels, documents, positions, rows, self.columns)


def collate(samples: Sequence[Sample | Sequence[Sample]], *, pad: int = 0, multiple_of: int = 1, shift: bool = True) -> Batch:
    """Make a batch of samples, or of rows of samples that packing made; `collate_fn` of a `DataLoader`.

    Args:
        samples: Samples, or lists of samples that share a row.
        pad: Input id of padding, whose label is always `IGNORED`.
        multiple_of: Rows are padded to a multiple of this number of steps.
        shift: The label of an input is the next id. `False` gives each id its own label, for models that shift labels themselves,
            as those of transformers.

    Raises:
        InvalidInput: There are no samples, they have different codebooks, or an option is invalid.
    """
    if not is_int(multiple_of) or multiple_of < 1 or not is_int(pad):
        raise InvalidInput(f"multiple_of is {multiple_of!r} and pad {pad!r}; expected integers, the former at least 1")
    if not isinstance(samples, Sequence) or not all(isinstance(row, Sample | Sequence) for row in samples):
        raise InvalidInput(f"samples to collate are {type(samples).__name__}; expected a list of those of a TokenDataset")
    rows = [[row] if isinstance(row, Sample) else list(row) for row in samples]
    found = [sample for row in rows for sample in row]
    if not found or not all(isinstance(sample, Sample) for sample in found):
        raise InvalidInput("there are no samples to collate; expected those of a TokenDataset")
    if len(shapes := {tuple(sample.ids.shape[1:]) for sample in found}) > 1:
        raise InvalidInput(f"samples have different codebooks: {', '.join(map(str, sorted(shapes)))}")

    pairs = [[_inputs_and_labels(sample, shift) for sample in row] for row in rows]
    longest = max(sum(len(inputs) for inputs, _ in row) for row in pairs)
    shape = (len(rows), -(-longest // multiple_of) * multiple_of)
    inputs = torch.full((*shape, *shapes.pop()), pad, dtype=torch.int64)
    labels = torch.full_like(inputs, IGNORED)
    documents, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for number, row in enumerate(pairs):
        start = 0
        for document, (ids, wanted) in enumerate(row, start=1):
            place = (number, slice(start, start + len(ids)))
            inputs[place], labels[place], documents[place], positions[place] = ids, wanted, document, torch.arange(len(ids))
            start += len(ids)
    return Batch(
        inputs,
        labels,
        documents,
        positions,
        torch.tensor([number for number, row in enumerate(rows) for _ in row]),
        {name: [sample.columns.get(name) for sample in found] for name in found[0].columns},
    )


def _inputs_and_labels(sample: Sample, shift: bool) -> tuple[Tensor, Tensor]:
    labels = torch.where(sample.targets, sample.ids, IGNORED)
    if shift:
        return sample.ids[:-1], labels[1:]
    labels[:1] = IGNORED  # in a packed row, the sequence before would predict it
    return sample.ids, labels
