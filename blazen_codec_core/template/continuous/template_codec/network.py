"""The network: a convolutional VAE. Its encoder gives the mean and the logarithm of the scale of each latent."""

from blazen_codec_core import CodecSpec
from blazen_codec_core.nn import ContinuousNetwork, Conv1d, ConvTranspose1d, Layer, Sequential, Snake, Tanh

from .specs import RATES

WIDTH = 8
"""Channels nearest to the audio; they double at each rate."""


class TemplateNetwork(ContinuousNetwork):
    """Strided convolutions with Snake activations. The mean is the latent; training draws around it."""

    def __init__(self, spec: CodecSpec) -> None:
        super().__init__()
        assert spec.latent_channels is not None
        self.latent_channels = spec.latent_channels
        self.encoder = encoder(2 * spec.latent_channels)
        self.decoder = decoder(spec.latent_channels)


def encoder(outputs: int) -> Sequential:
    """Encoder from audio `(batch, samples, 1)` to `(batch, samples / hop, outputs)`."""
    channels = WIDTH
    layers: list[Layer] = [Conv1d(1, channels, 7, padding=3)]
    for rate in RATES:
        layers += [Snake(channels), Conv1d(channels, 2 * channels, 2 * rate, stride=rate, padding=rate // 2)]
        channels *= 2
    return Sequential([*layers, Snake(channels), Conv1d(channels, outputs, 3, padding=1)])


def decoder(inputs: int) -> Sequential:
    """Decoder from latents `(batch, frames, inputs)` to audio `(batch, frames * hop, 1)`."""
    channels = WIDTH << len(RATES)
    layers: list[Layer] = [Conv1d(inputs, channels, 7, padding=3)]
    for rate in reversed(RATES):
        layers += [Snake(channels), ConvTranspose1d(channels, channels // 2, 2 * rate, stride=rate, crop=(rate // 2, rate // 2))]
        channels //= 2
    return Sequential([*layers, Snake(channels), Conv1d(channels, 1, 7, padding=3), Tanh()])
