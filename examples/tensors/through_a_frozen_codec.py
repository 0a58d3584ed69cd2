"""A small network that is trained through a frozen codec, with gradients straight through the quantizer.

    python examples/tensors/through_a_frozen_codec.py speech.wav

It learns a filter before the codec, so that what comes out of the codec is nearer to the original. The codec does not change.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import blazen_codec_core as bc


class Filter(nn.Module):
    """A filter of 63 taps, which begins as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(1, 1, 63))
        with torch.no_grad():
            self.taps[0, 0, 31] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv1d(x, self.taps, padding=31)


def spectral_distance(y: Tensor, x: Tensor) -> Tensor:
    """Mean distance of log-magnitude spectrograms of `(batch, 1, samples)`."""
    window = torch.hann_window(512)
    one, other = (
        torch.stft(signal[:, 0], 512, 128, window=window, return_complex=True).abs().clamp(min=1e-3).log() for signal in (y, x)
    )
    return (one - other).abs().mean()


def main(source: str, steps: int = 60) -> tuple[float, float]:
    """Train the filter on a recording; return the distance before and after."""
    torch.manual_seed(0)
    codec = bc.load("snac_tiny")
    module = codec.module.requires_grad_(False)  # gradients pass through it to its input
    pcm, rate = bc.read_audio(source)
    x = torch.from_numpy(bc.resample(pcm.mean(0, keepdims=True), rate, codec.sample_rate))[None]
    samples = codec.sample_rate
    model = Filter()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)

    def distance() -> float:
        with torch.no_grad():
            return spectral_distance(module(model(x)).audio, x).item()

    before = distance()
    for _ in range(steps):
        start = int(torch.randint(max(1, x.shape[2] - samples), ()))
        wanted = x[:, :, start : start + samples]
        loss = spectral_distance(module(model(wanted)).audio, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, distance()


if __name__ == "__main__":
    print("spectral distance {:.4f} to {:.4f}".format(*main(sys.argv[1])))
