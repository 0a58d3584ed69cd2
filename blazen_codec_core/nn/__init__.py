"""PyTorch layers with explicit stream state, for authors of codec plugins."""

from .codec_network import CodecNetwork, ContinuousNetwork
from .layers.activation import ELU, GELU, Clamp, LayerScale, SiLU, Snake, SnakeBeta, Tanh
from .layers.attention import LocalAttention
from .layers.base import (
    Layer,
    NoiseSource,
    State,
    StreamingModule,
    StreamSetup,
    prepare,
    reset_parameters,
)
from .layers.causal_attention import CausalAttention
from .layers.containers import Residual, Sequential, Tiling
from .layers.conv import Conv1d, ConvBase, ConvTranspose1d
from .layers.convnext import convnext_block
from .layers.fusion import FusableLayer, Pointwise
from .layers.lstm import LSTM
from .layers.noise import CounterNoise, NoiseBlock
from .layers.norm import ChannelNorm, LayerNorm, RMSNorm, TimeGroupNorm
from .layers.padding import Crop, EdgePadding, ReflectPadding, ZeroPadding, same_padding
from .layers.quantization import (
    FactorizedQuantizer,
    PairedQuantizer,
    Projections,
    Quantized,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
    VectorQuantizer,
)
from .layers.transformer import FeedForward, TransformerLayer

__all__ = [
    "ELU",
    "GELU",
    "LSTM",
    "CausalAttention",
    "ChannelNorm",
    "Clamp",
    "CodecNetwork",
    "ContinuousNetwork",
    "Conv1d",
    "ConvBase",
    "ConvTranspose1d",
    "CounterNoise",
    "Crop",
    "EdgePadding",
    "FactorizedQuantizer",
    "FeedForward",
    "FusableLayer",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "LocalAttention",
    "NoiseBlock",
    "NoiseSource",
    "PairedQuantizer",
    "Pointwise",
    "Projections",
    "Quantized",
    "RMSNorm",
    "ReflectPadding",
    "Residual",
    "ResidualVectorQuantizer",
    "Sequential",
    "SiLU",
    "Snake",
    "SnakeBeta",
    "SplitResidualVectorQuantizer",
    "State",
    "StreamSetup",
    "StreamingModule",
    "Tanh",
    "Tiling",
    "TimeGroupNorm",
    "TransformerLayer",
    "VectorQuantizer",
    "ZeroPadding",
    "convnext_block",
    "prepare",
    "reset_parameters",
    "same_padding",
]
