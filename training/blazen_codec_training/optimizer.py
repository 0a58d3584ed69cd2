"""Muon for the matrices inside the network, AdamW for the rest.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is Scalable for LLM
Training", for updates that match AdamW's in size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from blazen_codec_core.nn import CodecNetwork

SMALL = 8
"""Smallest number of rows and columns of a weight that Muon trains."""
LARGER = 2.0
"""Learning rate of Muon relative to AdamW's."""
LARGEST_NORM = 3.0
"""Norm to which larger gradients are clipped."""
LAST = 0.02
"""Last learning rate relative to the peak."""


class Optimizer(torch.optim.Optimizer):
    """Muon and AdamW as one optimizer of the weights of a network that are not frozen.

    Weights of convolutions `(kernel, in, out)` count as matrices `(kernel * in, out)`.
    """

    def __init__(self, network: CodecNetwork) -> None:
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        super().__init__(trained, {"lr": 0.0})
        books = {id(book.codebook) for book in network.quantizer}
        self._matrices = [p for p in trained if id(p) not in books and _is_matrix(p)]
        matrices = {id(p) for p in self._matrices}
        others = [p for p in trained if id(p) not in matrices]
        self._views = [nn.Parameter(p.detach().view(-1, p.shape[-1])) for p in self._matrices]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if others:
            self._parts["adamw"] = torch.optim.AdamW(others, betas=(0.8, 0.99), weight_decay=0.01)
        if self._views:
            self._parts["muon"] = torch.optim.Muon(self._views, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of AdamW, and twice that of Muon."""
        for name, part in self._parts.items():
            for group in part.param_groups:
                group["lr"] = rate * (LARGER if name == "muon" else 1.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for view, parameter in zip(self._views, self._matrices, strict=True):
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def scheduled(step: int, steps: int, *, warm: int, flat: float) -> float:
    """Share of the peak learning rate at a step: a linear rise, a flat part, and a cosine.

    Args:
        warm: Steps of the rise.
        flat: Share of the steps before the rate starts to fall.
    """
    progress = max(0.0, (step - flat * steps) / max((1 - flat) * steps, 1))
    return min(1.0, (step + 1) / warm) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() > 1 and min(parameter.numel() // parameter.shape[-1], parameter.shape[-1]) >= SMALL
