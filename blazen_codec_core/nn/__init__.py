"""PyTorch layers with explicit stream state, for authors of codec plugins."""

from .codec_network import CodecNetwork
from .layers.activation import ELU, Snake, Tanh
from .layers.attention import LocalAttention
from .layers.base import (
    Chain,
    InTiles,
    Layer,
    NoiseSource,
    Pointwise,
    Residual,
    Seeded,
    State,
    StreamSetup,
    prepare,
    reset_parameters,
)
from .layers.conv import Conv1d, Convolving, ConvTranspose1d
from .layers.lstm import LSTM
from .layers.noise import CounterNoise, NoiseBlock
from .layers.norm import TimeNorm
from .layers.padding import Crop, EdgePadding, ReflectPadding, ZeroPadding, same_padding
from .layers.quantization import FactorizedQuantizer, Quantized, ResidualVectorQuantizer, VectorQuantizer

__all__ = [
    "ELU",
    "LSTM",
    "Chain",
    "CodecNetwork",
    "Conv1d",
    "ConvTranspose1d",
    "Convolving",
    "CounterNoise",
    "Crop",
    "EdgePadding",
    "FactorizedQuantizer",
    "InTiles",
    "Layer",
    "LocalAttention",
    "NoiseBlock",
    "NoiseSource",
    "Pointwise",
    "Quantized",
    "ReflectPadding",
    "Residual",
    "ResidualVectorQuantizer",
    "Seeded",
    "Snake",
    "State",
    "StreamSetup",
    "Tanh",
    "TimeNorm",
    "VectorQuantizer",
    "ZeroPadding",
    "prepare",
    "reset_parameters",
    "same_padding",
]
