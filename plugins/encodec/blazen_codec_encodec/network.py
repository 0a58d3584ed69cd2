"""EnCodec's encoder, quantizer and decoder (Défossez et al. 2022, "High Fidelity Neural Audio Compression")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blazen_codec_core.nn import (
    ELU,
    LSTM,
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    Crop,
    EdgePadding,
    Layer,
    ReflectPadding,
    Residual,
    ResidualVectorQuantizer,
    Sequential,
    Tiling,
    TimeGroupNorm,
    VectorQuantizer,
    same_padding,
)

if TYPE_CHECKING:
    from .specs import EncodecArchitecture


TILE_FRAMES = 75
"""Tile size for the stages near the audio, which take the most memory and are no faster with larger tiles."""


def stage(a: EncodecArchitecture) -> int:
    """Layers of a stage: activation, resampling convolution and residual units, in encoder or decoder order."""
    return 2 + a.num_residual_layers


class EncodecNetwork(CodecNetwork):
    """The three parts of an EnCodec model; all train through autograd."""

    def __init__(self, architecture: EncodecArchitecture) -> None:
        super().__init__()
        a = architecture
        self.encoder = encoder(a)
        books = range(a.num_codebooks)
        self.quantizer = ResidualVectorQuantizer(
            a.hidden_size, (VectorQuantizer(a.hidden_size, a.codebook_size, init_std=0.3 * 0.95**book) for book in books)
        )
        self.decoder = decoder(a)


def encoder(a: EncodecArchitecture) -> Sequential:
    """Encoder from audio `(batch, samples, channels)` to the latent `(batch, samples / hop, hidden)`."""
    channels = a.num_filters
    layers: list[Layer] = [convolution(a, a.audio_channels, channels, a.kernel_size)]
    for stride in reversed(a.upsampling_ratios):
        layers += [
            *residual_units(a, channels),
            ELU(),
            convolution(a, channels, 2 * channels, 2 * stride, stride),
        ]
        channels *= 2
    tail = [*recurrent(a, channels), ELU(), convolution(a, channels, a.hidden_size, a.last_kernel_size)]
    near = min(2, len(a.upsampling_ratios))
    return Sequential([*layers, *tail], in_tiles(a, slice(1 + near * stage(a)), TILE_FRAMES * a.hop_length))


def decoder(a: EncodecArchitecture) -> Sequential:
    """Decoder from the latent `(batch, frames, hidden)` to audio `(batch, frames * hop, channels)`."""
    channels = a.num_filters * 2 ** len(a.upsampling_ratios)
    layers: list[Layer] = [convolution(a, a.hidden_size, channels, a.kernel_size), *recurrent(a, channels)]
    head = len(layers)
    for stride in a.upsampling_ratios:
        layers += [ELU(), upsampling(a, channels, channels // 2, stride), *residual_units(a, channels // 2)]
        channels //= 2
    layers += [ELU(), convolution(a, channels, a.audio_channels, a.last_kernel_size, gain=0.3)]
    far = max(0, len(a.upsampling_ratios) - 2)
    late = slice(head + far * stage(a), None)
    return Sequential(layers, in_tiles(a, late, TILE_FRAMES * math.prod(a.upsampling_ratios[:far])))


def in_tiles(a: EncodecArchitecture, layers: slice, frames: int) -> Tiling | None:
    """Tile layers, unless a norm extends over time."""
    return None if a.norm_type == "time_group_norm" else Tiling(layers, frames)


def recurrent(a: EncodecArchitecture, channels: int) -> list[Layer]:
    return [LSTM(channels, a.num_lstm_layers)] if a.num_lstm_layers else []


def residual_units(a: EncodecArchitecture, channels: int) -> list[Layer]:
    """Residual units of a stage, with increasing dilation."""
    return [residual_unit(a, channels, a.dilation_growth_rate**number) for number in range(a.num_residual_layers)]


def residual_unit(a: EncodecArchitecture, channels: int, dilation: int) -> Residual:
    hidden = channels // a.compress
    branch = [
        ELU(),
        convolution(a, channels, hidden, a.residual_kernel_size, dilation=dilation),
        ELU(),
        convolution(a, hidden, channels, 1),
    ]
    shortcut = convolution(a, channels, channels, 1) if a.use_conv_shortcut else None
    return Residual(channels, Sequential(branch), shortcut=shortcut)


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
