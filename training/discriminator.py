"""Discriminator for the last stage of training.

Source: the multi-scale STFT discriminator and the balancing of gradients of Défossez et al. 2022, "High Fidelity Neural Audio
Compression", with fewer channels; the hinge loss and feature matching are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (2048, 1024, 512)
"""Window lengths in samples."""
CHANNELS = 12
DILATIONS = (1, 2, 4)
"""Dilations in frames of the layers after the first."""
COMPRESSED = 0.3
"""Exponent of magnitudes, which emphasizes faint components."""


class DiscriminatorOutput(NamedTuple):
    score: Tensor
    """Score `(batch, 1, frames, bands)`; positive for real audio."""
    features: list[Tensor]
    """Outputs of the layers before the score."""


class STFTDiscriminator(nn.Module):
    """Convolutional discriminator of a complex spectrogram with one window length."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window))
        inner = [_conv(CHANNELS, CHANNELS, (3, 5), (1, 2), (dilation, 1)) for dilation in DILATIONS]
        self.layers = nn.ModuleList([_conv(2, CHANNELS, (3, 9), (1, 2)), *inner, _conv(CHANNELS, CHANNELS, (3, 3))])
        self.score = _conv(CHANNELS, 1, (3, 3))

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        spectrum = torch.stft(
            audio, self.window, self.window // 4, window=self.get_buffer("hann"), normalized=True, return_complex=True
        )
        parts = torch.view_as_real(spectrum)
        size = (parts.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        x, features = (parts * size ** (COMPRESSED - 1)).permute(0, 3, 2, 1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return DiscriminatorOutput(self.score(x), features)


class Discriminator(nn.Module):
    """Discriminators with several window lengths.

    Its methods take audio `(batch, samples)`.
    """

    def __init__(self, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__()
        self.judges = nn.ModuleList([STFTDiscriminator(window) for window in windows])

    def forward(self, audio: Tensor) -> list[DiscriminatorOutput]:
        return [judge(audio) for judge in self.judges]

    def loss(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Return the discriminators' hinge loss."""
        pairs = zip(self(made.detach()), self(wanted), strict=True)
        terms = [F.relu(1 + false.score).mean() + F.relu(1 - true.score).mean() for false, true in pairs]
        return torch.stack(terms).mean()

    def against(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codec's adversarial loss and the relative feature-matching loss."""
        with torch.no_grad():
            real = self(wanted)
        judged = self(made)
        taken = torch.stack([F.relu(1 - false.score).mean() for false in judged]).mean()
        apart = [
            F.l1_loss(a, b) / b.abs().mean()
            for false, true in zip(judged, real, strict=True)
            for a, b in zip(false.features, true.features, strict=True)
        ]
        return taken, torch.stack(apart).mean()


class AdversarialLoss:
    """A discriminator with its optimizer, and the loss that it adds to a codec's.

    Args:
        taken: Norm of the gradient of the adversarial loss, relative to that of the other losses.
        apart: Norm of the gradient of the feature-matching loss, relative to that of the other losses.
    """

    def __init__(self, seed: int, device: torch.device, *, taken: float = 0.2, apart: float = 0.6, rate: float = 1e-3) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.discriminator = Discriminator().to(device)
        self.taken, self.apart = taken, apart
        self._optimizer = torch.optim.AdamW(self.discriminator.parameters(), rate, betas=(0.5, 0.9))

    def step(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Train the discriminator for one step; return its loss."""
        loss = self.discriminator.loss(made, wanted)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss

    def add(self, loss: Tensor, made: Tensor, wanted: Tensor, say: float = 1.0) -> Tensor:
        """Return a loss whose gradient balances `loss`, a function of `made`, with the discriminator's losses of `made`.

        Args:
            say: Factor of both relative norms.
        """
        (total,) = torch.autograd.grad(loss, made)
        length = total.norm()
        for term, share in zip(self.discriminator.against(made, wanted), (self.taken, self.apart), strict=True):
            (gradient,) = torch.autograd.grad(term, made, retain_graph=True)
            total = total + gradient * (say * share * length / (gradient.norm() + 1e-12))
        return (made * total.detach()).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])


def _conv(
    channels_in: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1)
) -> nn.Conv2d:
    """Build a convolution over frames and bands; the padding keeps the length if the stride is 1."""
    padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    return weight_norm(nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation))
