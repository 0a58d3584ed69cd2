"""DAC's encoder, quantizer and decoder (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    CodecNetwork,
    Conv1d,
    FactorizedQuantizer,
    Layer,
    ReflectPadding,
    ResidualVectorQuantizer,
    Sequential,
    Snake,
    Tanh,
    Tiling,
)
from blazen_codec_core.nn.layers import blocks

if TYPE_CHECKING:
    from .specs import DacArchitecture


TILED = Tiling(slice(3, None), 1024)
"""Tiling of the decoder's last blocks, where half a tile is as fast and takes less memory."""


class DacNetwork(CodecNetwork):
    """The three parts of a DAC model; all train through autograd."""

    def __init__(self, architecture: DacArchitecture) -> None:
        super().__init__()
        a, latent = architecture, architecture.latent_channels
        self.encoder = encoder(a)
        self.quantizer = ResidualVectorQuantizer(
            latent, (FactorizedQuantizer(latent, a.codebook_size, size) for size in a.code_channels)
        )
        self.decoder = decoder(a)


def encoder(a: DacArchitecture) -> Sequential:
    """Encoder from audio `(batch, samples, 1)` to the latent `(batch, samples / hop, latent)`."""
    channels = a.encoder_dim
    layers: list[Layer] = [Conv1d(1, channels, 7, padding=3)]
    for stride in a.encoder_rates:
        layers.append(blocks.downsampling(channels, stride))
        channels *= 2
    return Sequential([*layers, Snake(channels), Conv1d(channels, a.latent_channels, 3, padding=1)])


def decoder(a: DacArchitecture, *, padded: bool = True, mirrored: bool = True) -> Sequential:
    """Decoder from the latent `(batch, frames, latent)` to audio `(batch, frames * hop, 1)`.

    With odd strides, the published models yield a few samples less; these are filled by mirroring the signal.

    Args:
        padded: Pad the signal with zeros at both ends.
        mirrored: Fill missing samples. Otherwise the output has `DacArchitecture.window_samples` samples.
    """
    channels = a.decoder_dim
    layers: list[Layer] = [Conv1d(a.latent_channels, channels, 7, padding=3 if padded else 0)]
    for stride in a.decoder_rates:
        crop = math.ceil(stride / 2)
        layers.append(blocks.upsampling(channels, stride, crop=(crop, crop), padded=padded))
        channels //= 2
    layers += [Snake(channels), Conv1d(channels, 1, 7, padding=3 if padded else 0, gain=0.05), Tanh()]
    if mirrored and a.missing_samples:
        layers.append(ReflectPadding(1, 0, a.missing_samples))
    return Sequential(layers, TILED)
