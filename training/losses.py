"""What a codec is trained to keep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from blazen_codec_core.metrics import mel_filters

SCALES = ((128, 12), (256, 24), (512, 40), (1024, 80), (2048, 128))
"""Window length in samples, and mel bands."""


class SpectralLoss(torch.nn.Module):
    """The mean difference of log-mel spectrograms and the spectral convergence, over several window lengths
    (Yamamoto et al. 2020, "Parallel WaveGAN"; Kumar et al. 2023)."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for window, bands in SCALES:
            self.register_buffer(f"mel{window}", torch.from_numpy(mel_filters(sample_rate, window, bands)).float())
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
