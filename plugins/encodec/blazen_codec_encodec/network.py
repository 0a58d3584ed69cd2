"""EnCodec's encoder, quantizer and decoder (Défossez et al. 2022, "High Fidelity Neural Audio Compression")."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    LSTM,
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    Crop,
    EdgePadding,
    Layer,
    ReflectPadding,
    ResidualVectorQuantizer,
    Sequential,
    TimeGroupNorm,
    VectorQuantizer,
    same_padding,
)
from blazen_codec_core.nn.seanet import Seanet

if TYPE_CHECKING:
    from .specs import EncodecArchitecture


TILE_FRAMES = 75
"""Tile size for the stages near the audio, which take the most memory and are no faster with larger tiles."""


class EncodecNetwork(CodecNetwork):
    """The three parts of an EnCodec model; all train through autograd."""

    def __init__(self, architecture: EncodecArchitecture) -> None:
        super().__init__()
        a = architecture
        self.encoder = seanet(a).encoder()
        books = range(a.num_codebooks)
        self.quantizer = ResidualVectorQuantizer(
            a.hidden_size, (VectorQuantizer(a.hidden_size, a.codebook_size, init_std=0.3 * 0.95**book) for book in books)
        )
        self.decoder = seanet(a).decoder()


def seanet(a: EncodecArchitecture) -> Seanet:
    """Encoder and decoder between audio and the latent; in tiles, unless a norm extends over time."""
    return Seanet(
        audio_channels=a.audio_channels,
        filters=a.num_filters,
        hidden=a.hidden_size,
        ratios=a.upsampling_ratios,
        kernel=a.kernel_size,
        last_kernel=a.last_kernel_size,
        residual_kernel=a.residual_kernel_size,
        residual_layers=a.num_residual_layers,
        dilation_growth=a.dilation_growth_rate,
        compress=a.compress,
        has_conv_shortcut=a.use_conv_shortcut,
        convolution=partial(convolution, a),
        upsampling=partial(upsampling, a),
        recurrent=lambda channels: [LSTM(channels, a.num_lstm_layers)] if a.num_lstm_layers else [],
        tile_samples=None if a.norm_type == "time_group_norm" else TILE_FRAMES * a.hop_length,
    )


def convolution(
    a: EncodecArchitecture, channels: int, out: int, kernel: int, stride: int = 1, *, dilation: int = 1, gain: float = 1.25
) -> Sequential:
    """Build a convolution with the configured padding, and its norm."""
    span = (kernel - 1) * dilation + 1
    left, right = same_padding(span, stride, a.use_causal_conv)
    padding = ends(a, channels, left, right, stride) if kernel > 1 else 0
    layer = Conv1d(channels, out, kernel, stride=stride, dilation=dilation, padding=padding, gain=gain)
    return Sequential([layer, *norm(a, out)])


def ends(a: EncodecArchitecture, channels: int, left: int, right: int, stride: int) -> ReflectPadding:
    """Return the configured padding."""
    if a.pad_mode == "reflect":
        return ReflectPadding(channels, left, right, stride)
    return EdgePadding(channels, left, right, stride, silent=a.pad_mode == "constant")


def upsampling(a: EncodecArchitecture, channels: int, out: int, stride: int) -> Sequential:
    """Build a transposed convolution and its norm, which includes the cropped samples."""
    kernel = 2 * stride
    total = kernel - stride
    right = math.ceil(total * a.trim_right_ratio) if a.use_causal_conv else total // 2
    crop = (total - right, right)
    if not (after := norm(a, out)):
        return Sequential([ConvTranspose1d(channels, out, kernel, stride=stride, crop=crop)])
    return Sequential([ConvTranspose1d(channels, out, kernel, stride=stride), *after, Crop(out, *crop)])


def norm(a: EncodecArchitecture, channels: int) -> list[Layer]:
    """Return the norm layer: group norm, or none, because weight norm is folded into the weights."""
    return [TimeGroupNorm(channels, inplace=True)] if a.norm_type == "time_group_norm" else []
