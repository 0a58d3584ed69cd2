"""Training losses. Their values do not depend on how the signals of a batch are divided."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from blazen_codec_core.evaluation.metrics import mel_filters

SCALES = ((128, 12), (256, 24), (512, 40), (1024, 80), (2048, 128))
"""Window length in samples, and mel bands."""


class SpectralLoss(torch.nn.Module):
    """Log-mel difference and spectral convergence over several window lengths.

    Sources: Yamamoto et al. 2020, "Parallel WaveGAN"; Kumar et al. 2023.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for window, bands in SCALES:
            self.register_buffer(f"mel{window}", torch.from_numpy(mel_filters(sample_rate, window, bands)).float())
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def forward(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-mel and the convergence term for two signals `(batch, samples)`."""
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
    """Return the energy of the error relative to the signal's; about 1 for a silent output."""
    error = (made - wanted).square().mean(1)
    return (error / (wanted.square().mean(1) + 1e-4)).sqrt().mean()


class EnvelopeLoss(torch.nn.Module):
    """Shortfall of short-time objective intelligibility: one minus the correlation of third-octave band envelopes over the cut.

    Taal et al. 2011, "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech"; without resampling
    the signals.
    """

    BANDS, LOWEST, WINDOW_MS, MIN_BINS = 15, 150.0, 25.6, 1024
    FAINTEST = 1e-2
    """Threshold relative to the loudest value, below which frames and bands are ignored. The paper ignores frames 40 dB below."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        centres = self.LOWEST * 2 ** (torch.arange(self.BANDS) / 3)
        self.window = int(sample_rate * self.WINDOW_MS / 1000)
        self.bins = max(self.MIN_BINS, 2 ** (self.window - 1).bit_length())
        frequencies = torch.linspace(0, sample_rate / 2, self.bins // 2 + 1)[:, None]
        self.register_buffer("bands", ((frequencies >= centres * 2 ** (-1 / 6)) & (frequencies < centres * 2 ** (1 / 6))).float())
        self.register_buffer("hann", torch.hann_window(self.window))

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Return the loss of two signals `(batch, samples)`: 0 if equal up to a gain per band, 1 if uncorrelated."""
        spectrum = torch.stft(
            torch.cat([made, wanted]), self.bins, self.window // 2, self.window, self.get_buffer("hann"),
            center=False, return_complex=True,
        )  # fmt: skip
        power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2) @ self.get_buffer("bands")
        a, b = (power + 1e-8).sqrt().chunk(2)  # (batch, frames, bands)
        loudness = b.square().sum(2).sqrt()
        heard = (loudness >= self.FAINTEST * loudness.amax(1, keepdim=True)).float()[..., None]
        count = heard.sum(1, keepdim=True)
        a, b = ((x - (x * heard).sum(1, keepdim=True) / count) * heard for x in (a, b))
        length_a, length_b = ((x.square().sum(1) + 1e-12).sqrt() for x in (a, b))  # (batch, bands)
        likeness = (a * b).sum(1) / ((length_a + 1e-3) * (length_b + 1e-3))
        weight = length_b / (length_b + self.FAINTEST * length_b.amax(1, keepdim=True) + 1e-3)
        return 1 - ((likeness * weight).sum(1) / weight.sum(1).clamp(min=1e-3)).mean()


WEIGHTS = {
    "log_mel": 4.0,
    "convergence": 1.0,
    "waveform": 0.5,
    "envelope": 3.0,
    "commitment": 0.1,
    "codebook": 0.4,
}
"""Weights of the losses of audio and of codes."""


def weighted(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted sum of losses."""
    return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()


class AudioLosses(torch.nn.Module):
    """All losses of audio."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.spectral, self.envelope = SpectralLoss(sample_rate), EnvelopeLoss(sample_rate)

    def forward(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the losses of two signals `(batch, samples)` by name."""
        log_mel, convergence = self.spectral(made, wanted)
        return {
            "log_mel": log_mel,
            "convergence": convergence,
            "waveform": waveform_loss(made, wanted),
            "envelope": self.envelope(made, wanted),
        }
