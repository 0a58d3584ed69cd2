"""Qwen3-TTS-Tokenizer-12Hz: Mimi's encoder, and a decoder with a transformer, ConvNeXt blocks and SnakeBeta convolutions.

Source: Qwen3-TTS Technical Report, 2026, https://arxiv.org/abs/2601.15621.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    Clamp,
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    Layer,
    PairedQuantizer,
    RMSNorm,
    Sequential,
    SnakeBeta,
    Tiling,
    convnext_block,
    seanet_transformer,
)
from blazen_codec_core.nn.layers import blocks

if TYPE_CHECKING:
    from .specs import DecoderArchitecture, Qwen3TtsArchitecture

TILE_FRAMES = 4
"""Tile size, in frames of tokens, of the blocks next to the audio, which need the most memory."""


class Qwen3TtsNetwork(CodecNetwork):
    """The parts of a model, with codebooks for the encoder and others for the decoder; all train through autograd."""

    quantizer: PairedQuantizer

    def __init__(self, architecture: Qwen3TtsArchitecture) -> None:
        super().__init__()
        a, d = architecture.encoder_config, architecture.decoder_config
        self.encoder = seanet_transformer.encoder(a, fills=True)
        entries = seanet_transformer.split_quantizer(d.codebook_dim, d.codebook_dim // 2, d.codebook_size, 1, d.num_quantizers)
        self.quantizer = PairedQuantizer(seanet_transformer.quantizer(a), entries)
        self.decoder = decoder(d)


def decoder(a: DecoderArchitecture) -> Sequential:
    """Decoder from the latent `(batch, frames, codebook_dim)` to audio `(batch, frames * hop, 1)`."""
    first = Conv1d(a.codebook_dim, a.latent_dim, 3, padding=(2, 0))
    stages = [Sequential([upsampling(a.latent_dim, ratio), convnext_block(a.latent_dim)]) for ratio in a.upsampling_ratios]
    return Sequential([first, transformer(a), Sequential(stages), vocoder(a)])


def upsampling(channels: int, ratio: int) -> ConvTranspose1d:
    return ConvTranspose1d(channels, channels, ratio, stride=ratio)


def transformer(a: DecoderArchitecture) -> Sequential:
    """Transformer over the last `sliding_window` frames, between projections from and to the latent."""
    norm = partial(RMSNorm, epsilon=a.rms_norm_eps)
    layers = seanet_transformer.transformer(a, norm, gated=True)
    before, after = Conv1d(a.latent_dim, a.hidden_size, 1), Conv1d(a.hidden_size, a.latent_dim, 1)
    return Sequential([before, layers, norm(a.hidden_size), after])


def vocoder(a: DecoderArchitecture) -> Sequential:
    """Convolutions from the upsampled latent to audio."""
    channels = a.decoder_dim
    layers: list[Layer] = [Conv1d(a.latent_dim, channels, 7, padding=(6, 0))]
    for stride in a.upsample_rates:
        layers.append(blocks.upsampling(channels, stride, crop=(0, stride), causal=True, activation=SnakeBeta))
        channels //= 2
    layers += [SnakeBeta(channels), Conv1d(channels, 1, 7, padding=(6, 0), gain=0.03), Clamp(-1, 1)]
    far = max(0, len(a.upsample_rates) - 2)
    hop = math.prod(a.upsampling_ratios) * math.prod(a.upsample_rates[:far])
    return Sequential(layers, Tiling(slice(1 + far, None), TILE_FRAMES * hop))
