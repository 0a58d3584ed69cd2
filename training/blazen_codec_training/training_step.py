"""One step of training: losses, gradients of all parts of a batch, and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from .discriminator import AdversarialLoss
from .forward_pass import Output
from .losses import AudioLosses, weighted
from .optimizer import LARGEST_NORM, Optimizer

SCALED = "16-mixed"
"""Precision in which Fabric scales the loss, and skips steps that overflow."""


@dataclass
class TrainingStep:
    """A step of a codec's training.

    Attributes:
        fabric: Devices, processes and precision.
        forward: Set-up forward pass, which returns `Output`.
        optimizer: Set-up optimizer of its weights.
        precision: Precision of `fabric`.
    """

    fabric: Fabric
    forward: Any
    optimizer: Optimizer
    losses: AudioLosses
    adversary: AdversarialLoss | None
    precision: str = "32-true"

    def run(
        self, parts: Sequence[tuple[Tensor, Tensor | None]], rate: float, *, say: float | None = None, quantize: bool = True
    ) -> tuple[dict[str, Tensor], list[Output]]:
        """Train for one step; return the losses, and the outputs without gradients.

        Args:
            parts: Parts of a batch, of equal size: signals `(batch, channels, samples)`, and the codebooks that each uses.
            rate: Learning rate.
            say: Weight of the discriminator; `None` for none.
            quantize: Use the quantizer.
        """
        results = [
            self._accumulate(*part, parts=len(parts), last=number == len(parts), say=say, quantize=quantize)
            for number, part in enumerate(parts, 1)
        ]
        if say is not None:
            assert self.adversary is not None
            self.adversary.step()
        norm: Any = self.fabric.clip_gradients(self.forward, self.optimizer, max_norm=LARGEST_NORM, error_if_nonfinite=False)
        self.optimizer.set_rate(rate)
        if self.precision == SCALED or bool(norm.isfinite()):
            self.optimizer.step()
        self.optimizer.zero_grad()
        terms = {name: torch.stack([losses[name] for losses, _ in results]).mean() for name in results[0][0]}
        return terms, [output for _, output in results]

    def _accumulate(
        self, x: Tensor, books: Tensor | None, *, parts: int, last: bool, say: float | None, quantize: bool
    ) -> tuple[dict[str, Tensor], Output]:
        """Add the gradients of a part of the batch."""
        with self.fabric.no_backward_sync(self.forward, enabled=not last):
            output: Output = self.forward(x, books, quantize)
            made, wanted = output.audio.detach().flatten(0, 1).requires_grad_(), x.flatten(0, 1)
            terms = self.losses(made, wanted)
            (gradient,) = torch.autograd.grad(weighted(terms), made)
            if say is not None:
                assert self.adversary is not None
                terms["adversary"] = self.adversary.accumulate(made, wanted, parts)
                gradient = self.adversary.balanced(gradient, made, wanted, say)
            loss = (output.audio.flatten(0, 1) * gradient).sum()
            codes = {"commitment": output.commitment, "codebook": output.codebook}
            trained = {name: term for name, term in codes.items() if term.requires_grad}
            if trained:
                loss = loss + weighted(trained)
            self.fabric.backward(loss / parts)
        detached = Output(output.audio.detach(), output.latents.detach(), output.codes, *(t.detach() for t in codes.values()))
        return {name: term.detach() for name, term in (terms | codes).items()}, detached
