"""Muon for the matrices inside the network, AdamW for the rest.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is Scalable for LLM
Training", for updates that match AdamW's in size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blazen_codec_core.nn import CodecNetwork

SMALL = 8
"""Smallest number of rows and columns of a weight that Muon trains."""
LARGER = 2.0
"""Learning rate of Muon relative to AdamW's."""


class Optimizer:
    """Muon and AdamW behind one interface.

    Args:
        network: Network; weights of convolutions `(kernel, in, out)` count as matrices `(kernel * in, out)`.
        most: Largest norm of the gradient.
    """

    def __init__(self, network: CodecNetwork, *, most: float = 3.0) -> None:
        self.parameters, self.most = list(network.parameters()), most
        books = {id(book.codebook) for book in network.quantizer}
        self._matrices = [p for p in self.parameters if id(p) not in books and _is_matrix(p)]
        matrices = {id(p) for p in self._matrices}
        self._views = [nn.Parameter(p.detach().view(-1, p.shape[-1])) for p in self._matrices]
        others = [p for p in self.parameters if id(p) not in matrices]
        self._adamw = torch.optim.AdamW(others, betas=(0.8, 0.99), weight_decay=0.01)
        self._muon = torch.optim.Muon(self._views, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")

    def step(self, loss: Tensor, rate: float) -> None:
        """Minimize `loss` by one step, with the learning rate `rate` for AdamW and twice that for Muon."""
        for optimizer, share in ((self._adamw, 1.0), (self._muon, LARGER)):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.most)
        for view, parameter in zip(self._views, self._matrices, strict=True):
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        self._adamw.step()
        self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state["adamw"])
        self._muon.load_state_dict(state["muon"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() > 1 and min(parameter.numel() // parameter.shape[-1], parameter.shape[-1]) >= SMALL
