"""What a codec is trained to keep."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = ((128, 12), (256, 24), (512, 40), (1024, 80), (2048, 128))
"""Window length in samples, and mel bands."""


def mel_filters(sample_rate: int, window: int, bands: int) -> Tensor:
    """Triangular filters on the mel scale (O'Shaughnessy's formula), `(window / 2 + 1, bands)`."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)[:, None]
    rising = (bins - hertz[:-2]) / np.maximum(hertz[1:-1] - hertz[:-2], sample_rate / window)
    falling = (hertz[2:] - bins) / np.maximum(hertz[2:] - hertz[1:-1], sample_rate / window)
    filters = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(filters / np.maximum(filters.sum(0), 1e-3)).float()


class SpectralLoss(torch.nn.Module):
    """The mean difference of log-mel spectrograms and the spectral convergence, over several window lengths
    (Yamamoto et al. 2020, "Parallel WaveGAN"; Kumar et al. 2023)."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for window, bands in SCALES:
            self.register_buffer(f"mel{window}", mel_filters(sample_rate, window, bands))
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def forward(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Audio `(batch, samples)` twice; the log-mel and the convergence term."""
        log_mel, convergence = made.new_zeros(()), made.new_zeros(())
        for window, _ in SCALES:
            both = torch.cat([made, wanted])
            spectrum = torch.stft(
                both, window, window // 4, window=self.get_buffer(f"hann{window}"), center=True, return_complex=True
            )
            power = torch.view_as_real(spectrum).square().sum(-1)
            magnitude = (power + 1e-9).sqrt().transpose(1, 2) / math.sqrt(window)
            a, b = magnitude.chunk(2)
            mel_a, mel_b = (torch.log10(m @ self.get_buffer(f"mel{window}") + 1e-4) for m in (a, b))
            log_mel = log_mel + F.l1_loss(mel_a, mel_b)
            distance = (a - b).square().sum((1, 2)).sqrt() / (b.square().sum((1, 2)).sqrt() + 0.1)
            convergence = convergence + distance.mean()
        return log_mel / len(SCALES), convergence / len(SCALES)


def waveform_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """The error's share of the signal's energy, at most about 1 for a silent output."""
    error = (made - wanted).square().mean(1)
    return (error / (wanted.square().mean(1) + 1e-4)).sqrt().mean()
