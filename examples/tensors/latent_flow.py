"""Latents of a codec as the data of a small flow model, which then generates sound.

    python examples/tensors/latent_flow.py speech.wav made.wav

The model learns the velocity from noise to latents (rectified flow: Liu et al. 2023, "Flow Straight and Fast").
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import blazen_codec_core as bc

FRAMES = 64


class Velocity(nn.Module):
    """Velocity of latents `(batch, latent, frames)` at a time between 0 (noise) and 1 (data)."""

    def __init__(self, latent: int, width: int = 192) -> None:
        super().__init__()
        layers = [nn.Conv1d(latent + 1, width, 5, padding=2)]
        layers += [nn.Conv1d(width, width, 5, padding=2 * rate, dilation=rate) for rate in (1, 2, 4)]
        self.layers = nn.ModuleList(layers)
        self.out = nn.Conv1d(width, latent, 1)

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        x = torch.cat([z, time.expand(len(z), 1, z.shape[2])], dim=1)
        x = nn.functional.silu(self.layers[0](x))
        for layer in self.layers[1:]:
            x = x + nn.functional.silu(layer(x))
        return self.out(x)


def main(source: str, target: str, steps: int = 600) -> tuple[float, float]:
    """Train on a recording, generate two seconds, and return the loss at the start and at the end."""
    torch.manual_seed(0)
    codec = bc.load("dac_tiny")
    module = codec.module
    pcm, rate = bc.read_audio(source)
    pcm = bc.resample(pcm.mean(0, keepdims=True), rate, codec.sample_rate)
    with torch.no_grad():
        z = module.encode_latents(torch.from_numpy(pcm)[None])[0]  # (latent, frames)
    mean, std = z.mean(1, keepdim=True), z.std(1, keepdim=True) + 1e-3
    data = (z - mean) / std

    model = Velocity(len(z))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(steps):
        starts = torch.randint(data.shape[1] - FRAMES + 1, (16,))
        x = torch.stack([data[:, start : start + FRAMES] for start in starts])
        noise, time = torch.randn_like(x), torch.rand(len(x), 1, 1)
        loss = (model(noise + time * (x - noise), time) - (x - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    with torch.no_grad():
        x = torch.randn(1, len(z), int(2 * codec.frame_rate))
        for number in range(32):
            x = x + model(x, torch.full((1, 1, 1), number / 32)) / 32
        audio = module.decode_latents(x * std + mean)
    bc.write_audio(target, audio[0].numpy(), codec.sample_rate)
    tenth = max(1, steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


if __name__ == "__main__":
    print("loss {:.3f} to {:.3f}".format(*main(*sys.argv[1:3])))
