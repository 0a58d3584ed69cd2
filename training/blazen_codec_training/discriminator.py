"""Discriminator for the last stage of training.

Source: the multi-scale STFT discriminator and the balancing of gradients of Défossez et al. 2022, "High Fidelity Neural Audio
Compression", with fewer channels; the hinge loss and feature matching are the same. Gradients are balanced for
each signal.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
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

    def against(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codec's adversarial loss and the relative feature-matching loss."""
        with torch.no_grad():
            real = self(wanted)
        judged = self(made)
        taken = torch.stack([F.relu(1 - false.score).mean() for false in judged]).mean()
        apart = [
            (_means((a - b).abs()) / (_means(b.abs()) + 1e-6)).mean()
            for false, true in zip(judged, real, strict=True)
            for a, b in zip(false.features, true.features, strict=True)
        ]
        return taken, torch.stack(apart).mean()


def hinge_loss(judged: list[DiscriminatorOutput]) -> Tensor:
    """Return the discriminators' loss for a batch whose first half is decoded and whose second half is real."""
    terms = []
    for output in judged:
        false, true = output.score.chunk(2)
        terms.append(F.relu(1 + false).mean() + F.relu(1 - true).mean())
    return torch.stack(terms).mean()


class AdversarialLoss:
    """A discriminator with its optimizer, and the gradient that it adds to a codec's.

    Args:
        taken: Norm of the gradient of the adversarial loss, relative to that of the other losses, for each signal.
        apart: The same for the feature-matching loss.
    """

    def __init__(self, seed: int, fabric: Fabric, *, taken: float = 0.2, apart: float = 0.6, rate: float = 1e-3) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.discriminator = Discriminator().to(fabric.device)
        self.taken, self.apart, self._fabric = taken, apart, fabric
        self._optimizer = torch.optim.AdamW(self.discriminator.parameters(), rate, betas=(0.5, 0.9))

    def accumulate(self, made: Tensor, wanted: Tensor, parts: int = 1) -> Tensor:
        """Add the discriminator's gradient of one of `parts` parts of a batch; return its loss."""
        loss = hinge_loss(self.discriminator(torch.cat([made.detach(), wanted])))
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self) -> None:
        """Train the discriminator by the gradients since the last step, averaged over all processes."""
        for parameter in self.discriminator.parameters():
            assert parameter.grad is not None
            parameter.grad = cast(Tensor, self._fabric.all_reduce(parameter.grad, reduce_op="mean"))
        self._optimizer.step()
        self._optimizer.zero_grad()

    def balanced(self, gradient: Tensor, made: Tensor, wanted: Tensor, say: float = 1.0) -> Tensor:
        """Return `gradient`, that of the other losses, with the gradients of the discriminator's losses added.

        Each signal's gradients are balanced separately, so that the result does not depend on the rest of the batch.

        Args:
            made: Decoded signals `(batch, samples)` that require gradients.
            say: Factor of both relative norms.
        """
        length = gradient.norm(dim=1, keepdim=True)
        for term, share in zip(self.discriminator.against(made, wanted), (self.taken, self.apart), strict=True):
            (more,) = torch.autograd.grad(term, made, retain_graph=True)
            gradient = gradient + more * (say * share * length / (more.norm(dim=1, keepdim=True) + 1e-12))
        return gradient

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])


def _means(x: Tensor) -> Tensor:
    """Return the mean of each signal of a batch."""
    return x.flatten(1).mean(1)


def _conv(
    channels_in: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1)
) -> nn.Conv2d:
    """Build a convolution over frames and bands; the padding keeps the length if the stride is 1."""
    padding = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    conv: nn.Conv2d = weight_norm(nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation))
    return conv
