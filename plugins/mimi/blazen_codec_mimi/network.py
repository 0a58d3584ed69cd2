"""Mimi's encoder, quantizer and decoder.

Source: Défossez et al. 2024, "Moshi: a speech-text foundation model for real-time dialogue".
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    ELU,
    GELU,
    CausalAttention,
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    EdgePadding,
    FeedForward,
    Layer,
    LayerNorm,
    Residual,
    Sequential,
    SiLU,
    SplitResidualVectorQuantizer,
    Tiling,
    TransformerLayer,
    VectorQuantizer,
)

if TYPE_CHECKING:
    from .specs import MimiArchitecture

TILE_SECONDS = 0.32
"""Tile size for the stages near the audio, which take the most memory and are no faster with larger tiles."""


class MimiNetwork(CodecNetwork):
    """The three parts of a Mimi model; all train through autograd."""

    quantizer: SplitResidualVectorQuantizer

    def __init__(self, architecture: MimiArchitecture) -> None:
        super().__init__()
        a = architecture
        self.encoder = encoder(a)
        counts = a.num_semantic_quantizers, a.num_quantizers - a.num_semantic_quantizers
        books = [[VectorQuantizer(a.codebook_dim, a.codebook_size, init_std=0.5) for _ in range(count)] for count in counts]
        self.quantizer = SplitResidualVectorQuantizer(a.hidden_size, a.codebook_dim, books)
        self.decoder = decoder(a)


def encoder(a: MimiArchitecture) -> Sequential:
    """SEANet, transformer and downsampling, from audio `(batch, samples, 1)` to the latent `(batch, samples / hop, hidden)`."""
    stride = a.latent_stride
    padding = EdgePadding(a.hidden_size, stride, 0, silent=False)
    downsampling = Conv1d(a.hidden_size, a.hidden_size, 2 * stride, stride=stride, padding=padding, bias=False)
    return Sequential([seanet_encoder(a), transformer(a), downsampling])


def decoder(a: MimiArchitecture) -> Sequential:
    """Upsampling, transformer and SEANet, from the latent `(batch, frames, hidden)` to audio `(batch, frames * hop, 1)`."""
    first = upsampling(a.hidden_size, a.hidden_size, a.latent_stride, bias=False, depthwise=True)
    return Sequential([first, transformer(a), seanet_decoder(a)])


def seanet_encoder(a: MimiArchitecture) -> Sequential:
    """Convolutions from audio to the rate of the transformer."""
    channels = a.num_filters
    layers: list[Layer] = [convolution(1, channels, a.kernel_size)]
    for stride in reversed(a.upsampling_ratios):
        layers += [*residual_units(a, channels), ELU(), convolution(channels, 2 * channels, 2 * stride, stride)]
        channels *= 2
    near = 1 + min(2, len(a.upsampling_ratios)) * (2 + a.num_residual_layers)
    layers += [ELU(), convolution(channels, a.hidden_size, a.last_kernel_size)]
    return Sequential(layers, Tiling(slice(near), tile(a, 0)))


def seanet_decoder(a: MimiArchitecture) -> Sequential:
    """Convolutions from the rate of the transformer to audio."""
    channels = a.num_filters << len(a.upsampling_ratios)
    layers: list[Layer] = [convolution(a.hidden_size, channels, a.kernel_size)]
    for stride in a.upsampling_ratios:
        layers += [ELU(), upsampling(channels, channels // 2, stride), *residual_units(a, channels // 2)]
        channels //= 2
    layers += [ELU(), convolution(channels, 1, a.last_kernel_size, gain=0.3)]
    far = max(0, len(a.upsampling_ratios) - 2)
    return Sequential(layers, Tiling(slice(1 + far * (2 + a.num_residual_layers), None), tile(a, far)))


def tile(a: MimiArchitecture, stages: int) -> int:
    """Frames of a tile at the rate before the last stages of the decoder, or, with 0, samples of audio."""
    samples = max(1, round(TILE_SECONDS * a.frame_rate)) * a.hop_length
    return samples if not stages else samples // math.prod(a.upsampling_ratios[stages:])


def residual_units(a: MimiArchitecture, channels: int) -> list[Layer]:
    """Residual units of a stage, with increasing dilation."""
    return [residual_unit(a, channels, a.dilation_growth_rate**number) for number in range(a.num_residual_layers)]


def residual_unit(a: MimiArchitecture, channels: int, dilation: int) -> Residual:
    hidden = channels // a.compress
    branch = [
        ELU(),
        convolution(channels, hidden, a.residual_kernel_size, dilation=dilation),
        ELU(),
        convolution(hidden, channels, 1),
    ]
    shortcut = convolution(channels, channels, 1) if a.use_conv_shortcut else None
    return Residual(channels, Sequential(branch), shortcut=shortcut)


def convolution(channels: int, out: int, kernel: int, stride: int = 1, *, dilation: int = 1, gain: float = 1.25) -> Conv1d:
    """Build a causal convolution: all its padding is before the signal."""
    left = (kernel - 1) * dilation + 1 - stride
    return Conv1d(channels, out, kernel, stride=stride, dilation=dilation, padding=(left, 0), gain=gain)


def upsampling(channels: int, out: int, stride: int, *, bias: bool = True, depthwise: bool = False) -> ConvTranspose1d:
    """Build a causal transposed convolution: what reaches beyond the signal's end is dropped."""
    return ConvTranspose1d(channels, out, 2 * stride, stride=stride, crop=(0, stride), bias=bias, depthwise=depthwise)


def transformer(a: MimiArchitecture) -> Sequential:
    """Transformer layers over the last `sliding_window` positions."""
    activation = {"gelu": GELU, "silu": SiLU}[a.hidden_act]

    def layer() -> TransformerLayer:
        attention = CausalAttention(
            a.hidden_size,
            a.num_attention_heads,
            a.sliding_window,
            kv_heads=a.num_key_value_heads,
            head_channels=a.head_dim,
            base=a.rope_theta,
            bias=a.attention_bias,
        )
        feed_forward = FeedForward(a.hidden_size, a.intermediate_size, activation=activation())
        norm = partial(LayerNorm, epsilon=a.norm_eps)
        return TransformerLayer(attention, feed_forward, norm=norm, scale=a.layer_scale_initial_scale)

    return Sequential(layer() for _ in range(a.num_hidden_layers))
