"""Causal encoders and decoders of SEANet convolutions, a transformer, and a convolution that changes the latent's rate.

Source: Défossez et al. 2024, "Moshi: a speech-text foundation model for real-time dialogue".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from .layers.activation import GELU, SiLU
from .layers.causal_attention import CausalAttention
from .layers.containers import Sequential
from .layers.conv import Conv1d, ConvTranspose1d
from .layers.norm import ChannelNorm, LayerNorm
from .layers.padding import EdgePadding
from .layers.quantization import SplitResidualVectorQuantizer, VectorQuantizer
from .layers.transformer import FeedForward, TransformerLayer
from .seanet import ConvBuilder, Seanet

if TYPE_CHECKING:
    from ..architectures.seanet_transformer import SeanetTransformerArchitecture

TILE_SECONDS = 0.32
"""Tile size for the stages near the audio, which take the most memory and are no faster with larger tiles."""
ACTIVATIONS = {"gelu": GELU, "silu": SiLU}
"""Activations of feed-forward layers, by their names in configs."""


def encoder(a: SeanetTransformerArchitecture, *, fills: bool = False) -> Sequential:
    """SEANet, transformer and downsampling, from audio `(batch, samples, 1)` to the latent `(batch, samples / hop, hidden)`.

    Args:
        fills: Every convolution pads what its input lacks to a multiple of its stride. Otherwise audio has whole frames.
    """
    stride = a.latent_stride
    padding = EdgePadding(a.hidden_size, stride, 0, stride if fills else 1, silent=False)
    downsampling = Conv1d(a.hidden_size, a.hidden_size, 2 * stride, stride=stride, padding=padding, bias=False)
    convolutions = seanet(a, filling_convolution if fills else convolution).encoder()
    return Sequential([convolutions, transformer(a, layer_norm(a)), downsampling])


def decoder(a: SeanetTransformerArchitecture) -> Sequential:
    """Upsampling, transformer and SEANet, from the latent `(batch, frames, hidden)` to audio `(batch, frames * hop, 1)`."""
    first = upsampling(a.hidden_size, a.hidden_size, a.latent_stride, bias=False, depthwise=True)
    return Sequential([first, transformer(a, layer_norm(a)), seanet(a, convolution).decoder()])


def quantizer(a: SeanetTransformerArchitecture) -> SplitResidualVectorQuantizer:
    """Residual quantizers side by side: a semantic and an acoustic one."""
    return split_quantizer(a.hidden_size, a.codebook_dim, a.codebook_size, a.num_semantic_quantizers, a.num_quantizers)


def split_quantizer(channels: int, code_channels: int, entries: int, semantic: int, count: int) -> SplitResidualVectorQuantizer:
    """Two residual quantizers side by side, with `semantic` codebooks and the rest of `count`."""
    counts = semantic, count - semantic
    books = [[VectorQuantizer(code_channels, entries, init_std=0.5) for _ in range(size)] for size in counts]
    return SplitResidualVectorQuantizer(channels, code_channels, books)


def seanet(a: SeanetTransformerArchitecture, convolution: ConvBuilder) -> Seanet:
    """Convolutions between audio and the rate of the transformers."""
    return Seanet(
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
        convolution=convolution,
        upsampling=upsampling,
        tile_samples=max(1, round(TILE_SECONDS * a.frame_rate)) * a.hop_length,
    )


def convolution(channels: int, out: int, kernel: int, stride: int = 1, *, dilation: int = 1, gain: float = 1.25) -> Conv1d:
    """Build a causal convolution: all its padding is before the signal."""
    left = (kernel - 1) * dilation + 1 - stride
    return Conv1d(channels, out, kernel, stride=stride, dilation=dilation, padding=(left, 0), gain=gain)


def filling_convolution(
    channels: int, out: int, kernel: int, stride: int = 1, *, dilation: int = 1, gain: float = 1.25
) -> Conv1d:
    """Build a causal convolution that pads its input to a multiple of its stride with zeros."""
    if stride == 1:
        return convolution(channels, out, kernel, dilation=dilation, gain=gain)
    left = (kernel - 1) * dilation + 1 - stride
    padding = EdgePadding(channels, left, 0, stride, silent=True)
    return Conv1d(channels, out, kernel, stride=stride, dilation=dilation, padding=padding, gain=gain)


def upsampling(channels: int, out: int, stride: int, *, bias: bool = True, depthwise: bool = False) -> ConvTranspose1d:
    """Build a causal transposed convolution: what reaches beyond the signal's end is dropped."""
    return ConvTranspose1d(channels, out, 2 * stride, stride=stride, crop=(0, stride), bias=bias, depthwise=depthwise)


def layer_norm(a: SeanetTransformerArchitecture) -> Callable[[int], ChannelNorm]:
    """Return the function that makes the norm of a number of channels."""
    return partial(LayerNorm, epsilon=a.norm_eps)


class TransformerSettings(Protocol):
    """Settings of transformer layers, with the names of published configs."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def num_attention_heads(self) -> int: ...

    @property
    def num_key_value_heads(self) -> int: ...

    @property
    def head_dim(self) -> int | None: ...

    @property
    def intermediate_size(self) -> int: ...

    @property
    def sliding_window(self) -> int: ...

    @property
    def rope_theta(self) -> float: ...

    @property
    def layer_scale_initial_scale(self) -> float: ...

    @property
    def hidden_act(self) -> str: ...

    @property
    def attention_bias(self) -> bool: ...


def transformer(a: TransformerSettings, norm: Callable[[int], ChannelNorm], *, gated: bool = False) -> Sequential:
    """Transformer layers over the last `sliding_window` positions.

    Args:
        norm: Makes the norm of a number of channels.
        gated: Feed-forward layers have gates.
    """

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
        activation = ACTIVATIONS[a.hidden_act]()
        feed_forward = FeedForward(a.hidden_size, a.intermediate_size, activation=activation, gated=gated)
        return TransformerLayer(attention, feed_forward, norm=norm, scale=a.layer_scale_initial_scale)

    return Sequential(layer() for _ in range(a.num_hidden_layers))
