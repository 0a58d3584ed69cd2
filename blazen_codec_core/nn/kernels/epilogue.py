"""Epilogue of a layer: scale, activation and residual add, which a kernel may fuse into its store."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

NONE, SNAKE, ELU, GELU, SILU, GAIN = range(6)
"""Activations; `GAIN` multiplies by a factor a channel."""
WITH_PARAMETERS = frozenset({SNAKE, GAIN})


@dataclass(frozen=True)
class Epilogue:
    """`activation(y * scale) + residual`, for the output y of a kernel.

    Attributes:
        scale: One factor a frame, `(frames,)`, for all signals of the batch.
        activation: `NONE`, `SNAKE`, `ELU`, `GELU`, `SILU` or `GAIN`.
        parameters: Parameters of the activation, if it has any: two float32 tensors `(channels,)`, for `GAIN` the same twice.
        residual: Signal that is added, `(batch, frames, channels)`.
        residual_head: Leading residual frames, when they are in another buffer.
            `len(residual_head) + len(residual) >= frames` of the output.
        native: A kernel's arguments for the parameters, for each number of channels. Copies share them with the parameters.
    """

    scale: Tensor | None = None
    activation: int = NONE
    parameters: tuple[Tensor, Tensor] | None = None
    residual: Tensor | None = None
    residual_head: Tensor | None = None
    native: dict[int, tuple[int, int, int]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def with_residual(self, residual: Tensor | None) -> Epilogue:
        """Copy with another residual, and no head."""
        epilogue = Epilogue(self.scale, self.activation, self.parameters, residual)
        object.__setattr__(epilogue, "native", self.native)
        return epilogue

    def full_residual(self) -> Tensor:
        """The residual as one tensor: its head, then the rest."""
        assert self.residual is not None
        head = self.residual_head
        return self.residual if head is None or not head.shape[1] else torch.cat([head, self.residual], dim=1)


IDENTITY = Epilogue()
