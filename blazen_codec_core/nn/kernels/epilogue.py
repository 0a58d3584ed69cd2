"""Epilogue of a layer: scale, activation and residual add, which a kernel may fuse into its store."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NONE, SNAKE, ELU = range(3)
"""Functions of one value."""


@dataclass(frozen=True)
class Epilogue:
    """In this order: a factor a frame, a function, a signal that is added.

    Attributes:
        scale: `(frames,)`, the same for all signals of the batch.
        kind: Of the function.
        parameters: Two float32 values a channel, where the function has any.
        added: `(batch, frames, channels)`.
        held: Its frames before those, where they lie elsewhere. Both together have at least as many as the output.
    """

    scale: Tensor | None = None
    kind: int = NONE
    parameters: tuple[Tensor, Tensor] | None = None
    added: Tensor | None = None
    held: Tensor | None = None

    def all_added(self) -> Tensor:
        """Signal that is added, as one tensor: the held frames, then the others."""
        assert self.added is not None
        return self.added if self.held is None or not self.held.shape[1] else torch.cat([self.held, self.added], dim=1)


NOTHING = Epilogue()


class FusedConv1d:
    """A convolution, as `aten.conv.Conv1dKernel`, that finishes what it makes. Not an ABC, which takes longer to recognise."""

    def __call__(self, x: Tensor, frames: int, after: Epilogue = NOTHING) -> Tensor:
        """See there; then `after`."""
        raise NotImplementedError
