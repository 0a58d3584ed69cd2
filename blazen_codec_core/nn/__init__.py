"""PyTorch layers with explicit stream state, for authors of codec plugins."""

from .codec_network import CodecNetwork, ContinuousNetwork
from .layers.activation import ELU, Snake, Tanh
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
from .layers.containers import Residual, Sequential, Tiling
from .layers.conv import Conv1d, ConvBase, ConvTranspose1d
from .layers.fusion import FusableLayer, Pointwise
from .layers.lstm import LSTM
from .layers.noise import CounterNoise, NoiseBlock
from .layers.norm import TimeGroupNorm
from .layers.padding import Crop, EdgePadding, ReflectPadding, ZeroPadding, same_padding
from .layers.quantization import FactorizedQuantizer, Quantized, ResidualVectorQuantizer, VectorQuantizer

__all__ = [
    "ELU",
    "LSTM",
    "CodecNetwork",
    "ContinuousNetwork",
    "Conv1d",
    "ConvBase",
    "ConvTranspose1d",
    "CounterNoise",
    "Crop",
    "EdgePadding",
    "FactorizedQuantizer",
    "FusableLayer",
    "Layer",
    "LocalAttention",
    "NoiseBlock",
    "NoiseSource",
    "Pointwise",
    "Quantized",
    "ReflectPadding",
    "Residual",
    "ResidualVectorQuantizer",
    "Sequential",
    "Snake",
    "State",
    "StreamSetup",
    "StreamingModule",
    "Tanh",
    "Tiling",
    "TimeGroupNorm",
    "VectorQuantizer",
    "ZeroPadding",
    "prepare",
    "reset_parameters",
    "same_padding",
]
