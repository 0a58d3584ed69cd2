"""Exponential moving average of weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class WeightAverage(Generic[N]):
    """Copy of a network whose weights follow the mean of the network's.

    Args:
        decay: Share of the mean that a step keeps; less in the first steps.

    Attributes:
        network: The copy.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        self._averages, self._sources = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the means towards the weights, after step number `step`, counted from 0."""
        share = min(self._decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self._averages), list(self._sources), 1 - share)
