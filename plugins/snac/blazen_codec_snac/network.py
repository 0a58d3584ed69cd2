"""SNAC's encoder, quantizer and decoder (Siuzdak et al. 2024, "SNAC: Multi-Scale Neural Audio Codec")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    CodecNetwork,
    Conv1d,
    FactorizedQuantizer,
    Layer,
    LocalAttention,
    NoiseBlock,
    ResidualVectorQuantizer,
    Sequential,
    Snake,
    Tanh,
    Tiling,
)
from blazen_codec_core.nn.layers import blocks

if TYPE_CHECKING:
    from .specs import SnacArchitecture


LATE_FRAMES = 768
"""Tile size for the decoder's last two blocks, which halves memory at a small cost in time."""


class SnacNetwork(CodecNetwork):
    """The three parts of a SNAC model; all train through autograd."""

    def __init__(self, architecture: SnacArchitecture) -> None:
        super().__init__()
        a = architecture
        self.encoder = encoder(a)
        self.quantizer = ResidualVectorQuantizer(
            a.latent_channels,
            (FactorizedQuantizer(a.latent_channels, a.codebook_size, a.codebook_dim, stride) for stride in a.vq_strides),
        )
        self.decoder = decoder(a)


def encoder(a: SnacArchitecture) -> Sequential:
    """Encoder from audio `(batch, samples, 1)` to the latent `(batch, samples / hop, latent)`."""
    channels = a.encoder_dim
    layers: list[Layer] = [Conv1d(1, channels, 7, padding=3)]
    for stride in a.encoder_rates:
        layers.append(blocks.downsampling(channels, stride, depthwise=a.depthwise))
        channels *= 2
    if a.attn_window_size:
        layers.append(LocalAttention(channels, a.attn_window_size))
    layers.append(Conv1d(channels, channels, 7, padding=3, groups=channels if a.depthwise else 1))
    return Sequential(layers)


def decoder(a: SnacArchitecture) -> Sequential:
    """Decoder from the latent `(batch, frames, latent)` to audio `(batch, frames * hop, 1)`."""
    channels, latent = a.decoder_dim, a.latent_channels
    layers: list[Layer] = (
        [Conv1d(latent, latent, 7, padding=3, groups=latent), Conv1d(latent, channels, 1)]
        if a.depthwise
        else [Conv1d(latent, channels, 7, padding=3)]
    )
    if a.attn_window_size:
        layers.append(LocalAttention(channels, a.attn_window_size))
    for number, stride in enumerate(a.decoder_rates):
        padding = math.ceil(stride / 2)
        crop = (padding, padding - stride % 2)
        noise = [NoiseBlock(channels // 2, number)] if a.noise else []
        layers.append(blocks.upsampling(channels, stride, crop=crop, tail_layers=noise, depthwise=a.depthwise))
        channels //= 2
    late = Tiling(slice(len(layers) - 2, None), LATE_FRAMES)
    return Sequential([*layers, Snake(channels), Conv1d(channels, 1, 7, padding=3, gain=0.05), Tanh()], late)
